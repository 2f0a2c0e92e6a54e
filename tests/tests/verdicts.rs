use ghostd_tests::bpf::Object;
#[test]
fn loads() {
    let o = Object::load(ghostd_tests::bpf::Room {
        routes: 16,
        instances: 16,
    })
    .unwrap_or_else(|e| panic!("{e:#?}"));
    let out = o.run("gd_steer", &[0u8; 64], 1).unwrap();
    assert_eq!(out.action, 2);
}
