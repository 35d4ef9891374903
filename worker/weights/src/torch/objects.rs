//! What a pickle builds.

use std::collections::BTreeMap;

use super::globals::Global;
use crate::error::Fault;
use crate::view::{Element, View};

/// A value on a pickle's stack. Texts lie in the file; what can be changed later lies in [`Objects`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// None, truth values and numbers with a fraction, which describe no weights.
    Other,
    True,
    Whole(i64),
    /// A whole number of more than 8 bytes, little-endian.
    Long(&'a [u8]),
    Text(&'a str),
    Global(Global),
    /// A place in [`Objects`].
    Object(usize),
}

/// Something that other values refer to.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dictionary(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    Tensor(Tensor<'a>),
}

/// Elements in the file, by the key under which they are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) element: Element,
    pub(super) count: u64,
}

impl Storage<'_> {
    /// Its size; beyond all bounds where it would overflow.
    pub(super) fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.element.size())
    }
}

/// A view of a storage. Offset and strides count elements.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

impl<'a> Tensor<'a> {
    /// This view of the storage's bytes, `data`.
    pub(super) fn view(self, data: &'a [u8]) -> View<'a> {
        let Self { storage, offset, shape, strides } = self;
        View { element: storage.element, data, offset, shape, strides }
    }
}

/// All objects of a pickle. An index is what [`Value::Object`] holds.
#[derive(Debug, Default)]
pub(super) struct Objects<'a>(Vec<Object<'a>>);

impl<'a> Objects<'a> {
    pub(super) fn push(&mut self, object: Object<'a>) -> Value<'a> {
        self.0.push(object);
        Value::Object(self.0.len() - 1)
    }

    pub(super) fn get(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(index) => self.0.get(index),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, value: Value<'a>) -> Option<&mut Object<'a>> {
        match value {
            Value::Object(index) => self.0.get_mut(index),
            _ => None,
        }
    }

    /// The items of a tuple or a list; none of another value.
    pub(super) fn items(&self, value: Value<'a>) -> &[Value<'a>] {
        match self.get(value) {
            Some(Object::Tuple(items) | Object::List(items)) => items,
            _ => &[],
        }
    }

    /// The value of a dictionary's text key.
    pub(super) fn entry(&self, dictionary: Value<'a>, key: &str) -> Option<Value<'a>> {
        let Some(Object::Dictionary(entries)) = self.get(dictionary) else { return None };
        entries.iter().rev().find(|(k, _)| matches!(k, Value::Text(k) if *k == key)).map(|(_, value)| *value)
    }

    /// The storages by key.
    pub(super) fn storages(&self) -> BTreeMap<&'a str, Storage<'a>> {
        let storages = self.0.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some((storage.key, *storage)),
            _ => None,
        });
        storages.collect()
    }

    /// The tensors of a dictionary by name. Other entries, such as a step's number, are passed over.
    pub(super) fn tensors(&self, dictionary: Value<'a>) -> Result<BTreeMap<&'a str, Tensor<'a>>, Fault> {
        let Some(Object::Dictionary(entries)) = self.get(dictionary) else {
            return Fault::unsupported(
                "its pickle is not a dictionary of tensors; load it with PyTorch and save its state_dict()",
            );
        };
        let mut tensors = BTreeMap::new();
        for (key, value) in entries {
            if let (Value::Text(name), Some(Object::Tensor(tensor))) = (*key, self.get(*value)) {
                tensors.insert(name, tensor.clone());
            }
        }
        if tensors.is_empty() && !entries.is_empty() {
            return Fault::unsupported(
                "its dictionary has no tensors at the top level; load it with PyTorch and save the state_dict \
                 inside it alone",
            );
        }
        Ok(tensors)
    }

    /// The storage that a persistent id, `("storage", type, key, device, elements, view)`, stands for.
    pub(super) fn storage(&self, id: Value<'a>) -> Result<Storage<'a>, Fault> {
        let [
            Value::Text("storage"),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            _,
            count,
            view @ ..,
        ] = self.items(id)
        else {
            return Fault::unsupported(
                "its pickle refers to something that is no storage; save it again with PyTorch",
            );
        };
        // The older form once had views of storages.
        if !matches!(view, [] | [Value::Other]) {
            return Fault::unsupported(
                "its storages are views of others; load and save it with a current PyTorch",
            );
        }
        match count {
            Value::Whole(count @ 0..) => Ok(Storage { key, element: *element, count: count.unsigned_abs() }),
            _ => Fault::damaged(format!("storage {} has no number of elements", key.escape_default())),
        }
    }

    /// The tensor that the arguments of `_rebuild_tensor_v2` describe.
    pub(super) fn tensor(&self, arguments: Value<'a>) -> Result<Tensor<'a>, Fault> {
        if let [storage, Value::Whole(offset), shape, strides, ..] = self.items(arguments)
            && let Some(Object::Storage(storage)) = self.get(*storage)
            && let Ok(offset) = u64::try_from(*offset)
            && let Some(shape) = self.counts(*shape)
            && let Some(strides) = self.counts(*strides)
            && shape.len() == strides.len()
        {
            return Ok(Tensor { storage: *storage, offset, shape, strides });
        }
        Fault::damaged("a tensor is described by something other than storage, offset, shape and strides")
    }

    /// A tuple of whole numbers, 0 or more.
    fn counts(&self, tuple: Value<'a>) -> Option<Vec<u64>> {
        let Some(Object::Tuple(items)) = self.get(tuple) else { return None };
        let count = |item: &Value<'_>| match item {
            Value::Whole(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        items.iter().map(count).collect()
    }
}
