//! The manifests of `deploy/kubernetes`, and those that `squadctl render` writes, as typed objects.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    let all = serde_norway::Deserializer::from_str(text).map(Value::deserialize);
    all.collect::<Result<_, _>>().expect("YAML")
}

/// The documents of a YAML file.
pub fn file(path: &Path) -> Vec<Value> {
    documents(&std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The only document of a kind, as Kubernetes understands it. Every field must be one that Kubernetes knows: what it
/// does not know would be passed over, and is not there when the object is written again.
pub fn one<T: DeserializeOwned + Serialize>(documents: &[Value], kind: &str) -> T {
    let found: Vec<&Value> = documents.iter().filter(|document| document["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "there is one {kind}");
    typed(found[0])
}

/// A document as Kubernetes understands it, with fields that it knows.
pub fn typed<T: DeserializeOwned + Serialize>(document: &Value) -> T {
    let object: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"));
    let again = serde_json::to_value(&object).expect("JSON");
    assert_eq!(&again, document, "every field is one of Kubernetes");
    object
}
