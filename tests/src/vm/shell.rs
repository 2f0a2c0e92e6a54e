//! Words for a shell.

/// Sets the environment, then becomes the command.
pub(super) fn script(environment: &[(String, String)], command: &[&str]) -> String {
    let mut script = String::new();
    for (name, value) in environment {
        script.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    script.push_str(&format!("exec {}\n", words.join(" ")));
    script
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn no_word_means_anything_to_a_shell() {
        let environment = [("A".to_owned(), "it's".to_owned())];
        let script = script(&environment, &["/bin/echo", "$x; `y`", ""]);
        assert_eq!(
            script,
            "export A='it'\\''s'\nexec '/bin/echo' '$x; `y`' ''\n"
        );
    }
}
