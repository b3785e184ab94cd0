//! The stack machine: opcodes of protocols 0 to 5.

use std::collections::HashMap;

use super::escapes::{unescape_bytes, unescape_unicode};
use super::{MAX_VALUES, Object, Pickle, Ref, Value, globals};
use crate::{Error, Format, Result};

/// Parses the pickle that `bytes` begin with.
pub(super) fn run(bytes: &[u8], format: Format) -> Result<Pickle<'_>> {
    let mut machine = Machine {
        bytes,
        at: 0,
        format,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        memoized: 0,
    };
    while !machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle { bytes, values: machine.values, root, length: machine.at, format })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    format: Format,
    values: Vec<Value>,
    stack: Vec<Ref>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Ref>,
    /// The next number that `MEMOIZE` gives.
    memoized: u64,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; true at the end.
    fn step(&mut self) -> Result<bool> {
        let at = self.at;
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(true),
            // Protocol and frames: the bytes that follow need no framing in memory.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),

            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()))?;
            }
            b'K' => {
                let n = self.take(1)?[0];
                self.push(Value::Int(n.into()))?;
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()))?;
            }
            b'I' => {
                let value = match self.line()? {
                    b"00" => Value::Bool(false),
                    b"01" => Value::Bool(true),
                    digits => self.number(digits)?,
                };
                self.push(value)?;
            }
            b'L' => {
                let digits = self.line()?;
                let value = self.number(digits.strip_suffix(b"L").unwrap_or(digits))?;
                self.push(value)?;
            }
            0x8a => {
                let n = self.take(1)?[0].into();
                self.long(n)?;
            }
            0x8b => {
                let n = self.length4()?;
                self.long(n)?;
            }
            b'F' => {
                let line = self.line()?;
                let number = std::str::from_utf8(line).ok().and_then(|s| s.parse().ok());
                self.push(Value::Float(number.ok_or_else(|| self.bad("a number that is none"))?))?;
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(number))?;
            }

            b'X' => {
                let n = self.length4()?;
                self.unicode(n)?;
            }
            0x8c => {
                let n = self.take(1)?[0].into();
                self.unicode(n)?;
            }
            0x8d => {
                let n = self.length8()?;
                self.unicode(n)?;
            }
            b'V' => {
                let line = self.line()?;
                let text = unescape_unicode(line);
                self.push(Value::Str(text))?;
            }
            b'T' | b'B' => {
                let n = self.length4()?;
                self.byte_string(n)?;
            }
            b'U' | b'C' => {
                let n = self.take(1)?[0].into();
                self.byte_string(n)?;
            }
            0x8e | 0x96 => {
                let n = self.length8()?;
                self.byte_string(n)?;
            }
            b'S' => {
                let line = self.line()?;
                let bytes = unescape_bytes(line).ok_or_else(|| self.bad("a string without its quotes"))?;
                self.push(Value::OwnedBytes(bytes))?;
            }

            b'(' => {
                self.bounded(self.marks.len(), "nesting")?;
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_ref(top)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let first = self.reach(usize::from(opcode - 0x84))?;
                let items = self.stack.split_off(first);
                self.push(Value::Tuple(items))?;
            }
            b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Value::List(items))?;
            }
            b'd' => {
                let items = self.since_mark()?;
                let pairs = self.pairs(&items)?;
                self.push(Value::Dict(pairs))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let first = self.reach(2)?;
                let items = self.stack.split_off(first);
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)?;
            }

            b'p' => {
                let line = self.line()?;
                let key = self.key(line)?;
                self.remember(key)?;
            }
            b'q' => {
                let key = self.take(1)?[0].into();
                self.remember(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?).into();
                self.remember(key)?;
            }
            0x94 => {
                let key = self.memoized;
                self.remember(key)?;
            }
            b'g' => {
                let line = self.line()?;
                let key = self.key(line)?;
                self.recall(key)?;
            }
            b'h' => {
                let key = self.take(1)?[0].into();
                self.recall(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?).into();
                self.recall(key)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = self.global(module, name)?;
                self.push_ref(global)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = match (&self.values[module as usize], &self.values[name as usize]) {
                    (Value::Str(module), Value::Str(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.global(module.as_bytes(), name.as_bytes())?
                    }
                    _ => return Err(self.bad("an object whose name is no text")),
                };
                self.push_ref(global)?;
            }
            b'P' => {
                let line = self.line()?;
                let id = self.new_value(Value::Str(String::from_utf8_lossy(line).into_owned()))?;
                self.push(Value::Persistent(id))?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))?;
            }
            b'R' | 0x81 => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.object(callable, args)?;
            }
            0x92 => {
                let (_named, args, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.object(callable, args)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let callable = self.global(module, name)?;
                let args = self.since_mark()?;
                let args = self.new_value(Value::Tuple(args))?;
                self.object(callable, args)?;
            }
            b'o' => {
                let mut args = self.since_mark()?;
                if args.is_empty() {
                    return Err(self.bad("an instance without a class"));
                }
                let callable = args.remove(0);
                let args = self.new_value(Value::Tuple(args))?;
                self.object(callable, args)?;
            }
            b'b' => {
                let given = self.pop()?;
                let top = self.top()?;
                match &mut self.values[top as usize] {
                    Value::Object(object) => object.state = Some(given),
                    // A dict subclass without a call of its own keeps its entries; its attributes do not matter.
                    Value::Dict(_) | Value::List(_) => {}
                    _ => return Err(self.bad("a state for something that has none")),
                }
            }
            _ => return Err(Error::Opcode { format: self.format, opcode, at }),
        }
        Ok(false)
    }

    fn bad(&self, what: &str) -> Error {
        Error::malformed(self.format, format!("the pickle has {what}, before byte {}", self.at))
    }

    fn bounded(&self, count: usize, what: &str) -> Result<()> {
        if count < MAX_VALUES {
            return Ok(());
        }
        let what = format!("the pickle's {what} (byte {})", self.at);
        Err(Error::TooLarge { format: self.format, what, limit: format!("{MAX_VALUES} values") })
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            Error::malformed(self.format, format!("the pickle ends early, at byte {}", self.at))
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn length4(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize> {
        Ok(usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX))
    }

    /// The bytes up to the next newline, which is passed.
    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or_else(|| self.bad("a line without an end"))?;
        self.at += end + 1;
        Ok(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]))
    }

    fn number(&self, digits: &[u8]) -> Result<Value> {
        let n = std::str::from_utf8(digits).ok().and_then(|s| s.trim().parse().ok());
        n.map(Value::Int).ok_or_else(|| self.bad("a whole number that is none, or too large a one"))
    }

    fn long(&mut self, n: usize) -> Result<()> {
        let bytes = self.take(n)?;
        if n > 16 {
            return Err(self.bad("a whole number of more than 16 bytes"));
        }
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [fill; 16];
        whole[..n].copy_from_slice(bytes);
        self.push(Value::Int(i128::from_le_bytes(whole)))
    }

    fn unicode(&mut self, n: usize) -> Result<()> {
        let bytes = self.take(n)?;
        // Python writes lone surrogates, which UTF-8 proper does not have.
        self.push(Value::Str(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn byte_string(&mut self, n: usize) -> Result<()> {
        let start = self.at;
        self.take(n)?;
        self.push(Value::Bytes(start..start + n))
    }

    fn new_value(&mut self, value: Value) -> Result<Ref> {
        self.bounded(self.values.len(), "number of values")?;
        self.values.push(value);
        Ok((self.values.len() - 1) as Ref)
    }

    fn push_ref(&mut self, value: Ref) -> Result<()> {
        self.bounded(self.stack.len(), "stack")?;
        self.stack.push(value);
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<()> {
        let value = self.new_value(value)?;
        self.push_ref(value)
    }

    /// Where the topmost `n` values begin, without going below the last mark.
    fn reach(&self, n: usize) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let first = self.stack.len().checked_sub(n).filter(|&first| first >= floor);
        first.ok_or_else(|| self.bad("too few values on its stack"))
    }

    fn pop(&mut self) -> Result<Ref> {
        let first = self.reach(1)?;
        Ok(self.stack.swap_remove(first))
    }

    fn top(&self) -> Result<Ref> {
        Ok(self.stack[self.reach(1)?])
    }

    fn since_mark(&mut self) -> Result<Vec<Ref>> {
        let mark = self.marks.pop().ok_or_else(|| self.bad("no mark where one is needed"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pairs(&self, items: &[Ref]) -> Result<Vec<(Ref, Ref)>> {
        match items.as_chunks::<2>() {
            (pairs, []) => Ok(pairs.iter().map(|&[k, v]| (k, v)).collect()),
            _ => Err(self.bad("a key without a value")),
        }
    }

    fn append(&mut self, new: &[Ref]) -> Result<()> {
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::List(items) => items.extend_from_slice(new),
            Value::Object(object) => object.items.extend_from_slice(new),
            _ => return Err(self.bad("an element for something that has none")),
        }
        Ok(())
    }

    fn set_items(&mut self, new: &[Ref]) -> Result<()> {
        let new = self.pairs(new)?;
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::Dict(pairs) => pairs.extend_from_slice(&new),
            Value::Object(object) => object.pairs.extend_from_slice(&new),
            _ => return Err(self.bad("an entry for something that has none")),
        }
        Ok(())
    }

    fn key(&self, line: &[u8]) -> Result<u64> {
        let key = std::str::from_utf8(line).ok().and_then(|s| s.parse().ok());
        key.ok_or_else(|| self.bad("a memo key that is no number"))
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        self.bounded(self.memo.len(), "memo")?;
        let top = self.top()?;
        self.memo.insert(key, top);
        self.memoized = self.memoized.max(key.saturating_add(1));
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        let value = self.memo.get(&key).copied();
        let value = value.ok_or_else(|| self.bad("a reference to what it never stored"))?;
        self.push_ref(value)
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Result<Ref> {
        let global = format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name));
        if !globals::allowed(&global) {
            return Err(Error::Global { format: self.format, global: global.chars().take(200).collect() });
        }
        self.new_value(Value::Global(global))
    }

    fn object(&mut self, callable: Ref, args: Ref) -> Result<()> {
        if !matches!(self.values[callable as usize], Value::Global(_)) {
            return Err(self.bad("a call of something that is no named object"));
        }
        let object = Object { callable, args, state: None, items: Vec::new(), pairs: Vec::new() };
        self.push(Value::Object(Box::new(object)))
    }
}
