//! The OpenAPI document as a judge of answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Reply;
use crate::control::openapi;

/// What the document promises, and what of it was not seen yet.
pub(super) struct Contract {
    document: Value,
    unseen: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Contract {
    pub(super) fn new() -> Self {
        let document: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
        let mut unseen = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                let key = (method.clone(), path.clone());
                unseen.insert(key, responses.keys().cloned().collect());
            }
        }
        Self { document, unseen }
    }

    pub(super) fn documents(&self, method: &str, path: &str, status: u16) -> bool {
        !self.response(method, path, status).is_null()
    }

    /// Fails unless the answer has this status, and the document has such an
    /// answer: its content type and its schema.
    #[track_caller]
    pub(super) fn judge(&mut self, method: &str, path: &str, status: u16, reply: &Reply) {
        let body = &reply.body;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}: {body}");
        let content = &self.response(method, path, status)["content"][&reply.content_type];
        let what = format!("{method} {path} {status} {}", reply.content_type);
        assert!(content.is_object(), "{what} is not documented");
        if reply.content_type.starts_with("text/plain") {
            self.saw(method, path, status);
            return;
        }
        let schema = json!({
            "allOf": [content["schema"]],
            "components": self.document["components"],
        });
        let schema = jsonschema::validator_for(&schema).unwrap();
        let documents: Vec<&str> = if reply.content_type == "application/x-ndjson" {
            body.lines().collect()
        } else {
            vec![body]
        };
        assert!(!documents.is_empty(), "{what} has no body");
        for document in documents {
            let value: Value = serde_json::from_str(document).unwrap();
            if let Err(e) = schema.validate(&value) {
                panic!("{what}: {e} in {value}");
            }
        }
        self.saw(method, path, status);
    }

    fn saw(&mut self, method: &str, path: &str, status: u16) {
        let key = (method.to_owned(), path.to_owned());
        self.unseen
            .get_mut(&key)
            .unwrap()
            .remove(&status.to_string());
    }

    /// Every documented answer was seen.
    #[track_caller]
    pub(super) fn fulfilled(mut self) {
        self.unseen.retain(|_, statuses| !statuses.is_empty());
        assert!(self.unseen.is_empty(), "never seen: {:?}", self.unseen);
    }

    fn response(&self, method: &str, path: &str, status: u16) -> &Value {
        let operation = &self.document["paths"][path][method];
        &operation["responses"][status.to_string()]
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get("$ref") {
                found.insert(to.clone());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = Contract::new().document;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}
