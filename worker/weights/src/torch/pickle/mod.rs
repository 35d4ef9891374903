//! The instructions of a pickle, as far as state dicts need them.
//!
//! A pickle is a program for a small stack machine, which can name and call any function of its reader's
//! Python. This machine knows three functions, which do nothing but describe tensors, and the names of types;
//! another name is refused. The instructions are those of Python's module `pickletools`.

use std::collections::HashMap;

use super::globals::{Global, lookup};
use super::objects::{Object, Objects, Value};
use crate::cursor::Cursor;
use crate::error::Fault;

#[cfg(test)]
mod tests;

/// Characters of a refused name that are said.
const LONGEST_NAME: usize = 100;

/// What a pickle built.
pub(super) struct Built<'a> {
    /// What was left on the stack.
    pub(super) value: Value<'a>,
    pub(super) objects: Objects<'a>,
}

/// Runs the pickle at the cursor, which is left behind its last instruction.
pub(super) fn run<'a>(input: &mut Cursor<'a>) -> Result<Built<'a>, Fault> {
    let mut machine = Machine {
        input,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: Objects::default(),
    };
    loop {
        let at = machine.input.at();
        let instruction = machine.input.u8()?;
        if instruction == b'.' {
            return Ok(Built { value: machine.pop()?, objects: machine.objects });
        }
        let known = machine.scalar(instruction)?
            || machine.memory(instruction)?
            || machine.container(instruction)?
            || machine.call(instruction)?;
        if !known {
            return Fault::unsupported(format!(
                "its pickle has instruction 0x{instruction:02x} at byte {at}, which state dicts have no need of; \
                 load it with PyTorch and save its state_dict()"
            ));
        }
    }
}

struct Machine<'a, 'i> {
    input: &'i mut Cursor<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack where a group of items begins.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Objects<'a>,
}

impl<'a> Machine<'a, '_> {
    /// Instructions that push a value which is written beside them. Each group's answer is whether the
    /// instruction was one of it.
    fn scalar(&mut self, instruction: u8) -> Result<bool, Fault> {
        let value = match instruction {
            b'N' | 0x89 => Value::Other,
            0x88 => Value::True,
            b'G' => self.input.take(8).map(|_| Value::Other)?,
            b'J' => Value::Whole(self.input.i32()?.into()),
            b'K' => Value::Whole(self.input.u8()?.into()),
            b'M' => Value::Whole(self.input.u16()?.into()),
            0x8a => self.long()?,
            // Texts with a length of one, four and eight bytes; T and U are Python 2's.
            0x8c | b'U' => {
                let length = self.input.u8()?;
                Value::Text(self.input.text(length.into())?)
            }
            b'X' | b'T' => {
                let length = self.input.u32()?;
                Value::Text(self.input.text(length.into())?)
            }
            0x8d => {
                let length = self.input.u64()?;
                Value::Text(self.input.text(length)?)
            }
            _ => return Ok(false),
        };
        self.stack.push(value);
        Ok(true)
    }

    /// A whole number with its length: two's complement, little-endian.
    fn long(&mut self) -> Result<Value<'a>, Fault> {
        let length = self.input.u8()?;
        let bytes = self.input.take(length.into())?;
        if bytes.len() > 8 {
            return Ok(Value::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut whole = [if negative { 0xFF } else { 0 }; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Whole(i64::from_le_bytes(whole)))
    }

    /// Instructions about the program itself and its memory.
    fn memory(&mut self, instruction: u8) -> Result<bool, Fault> {
        match instruction {
            // The protocol's number, and the length of what follows.
            0x80 => drop(self.input.u8()?),
            0x95 => drop(self.input.u64()?),
            b'(' => self.marks.push(self.stack.len()),
            b'q' => {
                let slot = self.input.u8()?.into();
                self.remember(slot)?;
            }
            b'r' => {
                let slot = self.input.u32()?;
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let slot = self.input.u8()?.into();
                self.recall(slot)?;
            }
            b'j' => {
                let slot = self.input.u32()?;
                self.recall(slot)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Instructions that build tuples, lists and dictionaries.
    fn container(&mut self, instruction: u8) -> Result<bool, Fault> {
        match instruction {
            b')' => self.build(Object::Tuple(Vec::new())),
            b']' => self.build(Object::List(Vec::new())),
            b'}' => self.build(Object::Dictionary(Vec::new())),
            0x85..=0x87 => {
                let mut items = vec![Value::Other; usize::from(instruction - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.build(Object::Tuple(items));
            }
            b't' => {
                let items = self.group()?;
                self.build(Object::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.group()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.group()?;
                self.set(&items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Instructions that name, call and fill in.
    fn call(&mut self, instruction: u8) -> Result<bool, Fault> {
        match instruction {
            // Name something; `i` would call it at once.
            b'c' | b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.name(module, name)?;
                return Ok(instruction == b'c');
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Fault::damaged("its pickle names something by what is no text");
                };
                self.name(module, name)?;
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.apply(function, arguments)?;
            }
            // Attributes of a dictionary are notes about versions.
            b'b' => {
                self.pop()?;
                let object = self.top()?;
                if !matches!(self.objects.get(object), Some(Object::Dictionary(_))) {
                    return Fault::unsupported(
                        "its pickle gives attributes to something that is no dictionary",
                    );
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.objects.storage(id)?;
                self.build(Object::Storage(storage));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), Fault> {
        let Some(global) = lookup(module, name) else {
            let full = format!("{module}.{name}");
            // It may hold anything, and is shown on a terminal.
            return Err(Fault::Refused(full.escape_default().take(LONGEST_NAME).collect()));
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn apply(&mut self, function: Value<'a>, arguments: Value<'a>) -> Result<(), Fault> {
        match (function, self.objects.items(arguments)) {
            (Value::Global(Global::Dictionary), []) => self.build(Object::Dictionary(Vec::new())),
            (Value::Global(Global::Tensor), _) => {
                let tensor = self.objects.tensor(arguments)?;
                self.build(Object::Tensor(tensor));
            }
            (Value::Global(Global::Parameter), [tensor, ..])
                if matches!(self.objects.get(*tensor), Some(Object::Tensor(_))) =>
            {
                self.stack.push(*tensor);
            }
            _ => {
                return Fault::unsupported(
                    "its pickle calls something with arguments that state dicts do not have; load it with PyTorch \
                     and save its state_dict()",
                );
            }
        }
        Ok(())
    }

    fn build(&mut self, object: Object<'a>) {
        let value = self.objects.push(object);
        self.stack.push(value);
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<(), Fault> {
        let list = self.top()?;
        match self.objects.get_mut(list) {
            Some(Object::List(all)) => all.extend(items),
            _ => return Fault::damaged("its pickle appends to what is no list"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Value<'a>]) -> Result<(), Fault> {
        let dictionary = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Fault::damaged("its pickle sets a key without a value");
        };
        match self.objects.get_mut(dictionary) {
            Some(Object::Dictionary(all)) => all.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Fault::damaged("its pickle sets keys of what is no dictionary"),
        }
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), Fault> {
        let value = self.top()?;
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), Fault> {
        let Some(value) = self.memo.get(&slot) else {
            return Fault::damaged(format!("its pickle recalls slot {slot}, in which nothing is"));
        };
        self.stack.push(*value);
        Ok(())
    }

    /// Values below the last mark are not reached.
    fn pop(&mut self) -> Result<Value<'a>, Fault> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Result<Value<'a>, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(value) if self.stack.len() > floor => Ok(*value),
            _ => Fault::damaged("its pickle takes a value that is not there"),
        }
    }

    /// Takes all values above the last mark, and the mark.
    fn group(&mut self) -> Result<Vec<Value<'a>>, Fault> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Fault::damaged("its pickle ends a group that was not begun"),
        }
    }
}
