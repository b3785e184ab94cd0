//! Shaders: WGSL fragments, put together and specialised as text.
//!
//! A kernel is a list of fragments. What its text depends on (the width of vectors, which operand holds 16-bit numbers,
//! how matrices are stored, the size of tiles) is a set of [`Define`]s: they become constants, and lines that begin with
//! `#` choose and repeat others:
//!
//! ```text
//! #if NAME, #if !NAME … #else … #end      for NAME defined and not 0, or not
//! #for i 0 N … #end                       N a number or a define; {i} in between is replaced
//! ```
//!
//! Loops over registers are unrolled in this way: an array that a compiler does not unroll goes to memory.

use std::fmt::Write;

/// A name that a shader's text depends on, and its value.
pub(crate) type Define = (&'static str, u32);

/// A kernel's text.
#[derive(Debug)]
pub(crate) struct Source {
    /// What profiles and errors call it.
    pub(crate) name: &'static str,
    /// Its fragments, in order.
    pub(crate) parts: &'static [&'static str],
    /// Storage buffers that are read, bindings 1, 2, …
    pub(crate) reads: usize,
    /// Storage buffers that are written, the bindings after those.
    pub(crate) writes: usize,
}

/// What makes one text of a source.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Variant {
    /// 4 where kernels see vectors of four numbers, else 1.
    pub(crate) width: u32,
    /// Bit `i` is set where binding `i` holds 16-bit numbers.
    pub(crate) half: u32,
    pub(crate) defines: Vec<Define>,
}

impl Source {
    /// The text for `variant`.
    pub(crate) fn text(&self, variant: &Variant) -> String {
        let mut out = String::new();
        if variant.half != 0 {
            out.push_str("enable f16;\n");
        }
        let vector = |scalar: &str| match variant.width {
            4 => format!("vec4<{scalar}>"),
            _ => scalar.to_owned(),
        };
        // `T` is what is computed in, `S1` what binding 1 stores.
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes any text");
        line(format!("const W: u32 = {}u;\nalias T = {};", variant.width, vector("f32")));
        for i in 1..=self.reads + self.writes {
            let scalar = if variant.half >> i & 1 == 1 { "f16" } else { "f32" };
            line(format!("alias S{i} = {};\nalias E{i} = {scalar};", vector(scalar)));
        }
        for (name, value) in &variant.defines {
            line(format!("const {name}: u32 = {value}u;"));
        }
        let mut defines = variant.defines.clone();
        defines.push(("VECTORS", u32::from(variant.width == 4)));
        let lines: Vec<_> = self.parts.iter().flat_map(|part| part.lines()).collect();
        expand(&lines, &defines, &[], &mut out);
        out
    }
}

/// Writes `lines` with their `#` lines obeyed. `loops` are the names and values of the loops around them.
fn expand(lines: &[&str], defines: &[Define], loops: &[(&str, u32)], out: &mut String) {
    let value = |name: &str| defines.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v);
    let mut at = 0;
    while at < lines.len() {
        let words: Vec<_> = lines[at].split_whitespace().collect();
        match words.as_slice() {
            ["#if", name] => {
                let (middle, end) = block(lines, at);
                let yes = match name.strip_prefix('!') {
                    Some(name) => value(name) == 0,
                    None => value(name) != 0,
                };
                let chosen = match (yes, middle) {
                    (true, middle) => &lines[at + 1..middle.unwrap_or(end)],
                    (false, Some(middle)) => &lines[middle + 1..end],
                    (false, None) => &[],
                };
                expand(chosen, defines, loops, out);
                at = end;
            }
            ["#for", name, from, to] => {
                let (_, end) = block(lines, at);
                let number = |word: &str| word.parse().unwrap_or_else(|_| value(word));
                for i in number(from)..number(to) {
                    expand(&lines[at + 1..end], defines, &[loops, &[(*name, i)]].concat(), out);
                }
                at = end;
            }
            _ => {
                let mut text = lines[at].to_owned();
                for (name, value) in loops {
                    text = text.replace(&format!("{{{name}}}"), &value.to_string());
                }
                out.push_str(&text);
                out.push('\n');
            }
        }
        at += 1;
    }
}

/// The `#else` and the `#end` of the block that begins at `start`.
fn block(lines: &[&str], start: usize) -> (Option<usize>, usize) {
    let (mut depth, mut middle) = (0, None);
    for (at, line) in lines.iter().enumerate().skip(start) {
        match line.split_whitespace().next() {
            Some("#if" | "#for") => depth += 1,
            Some("#else") if depth == 1 => middle = Some(at),
            Some("#end") if depth == 1 => return (middle, at),
            Some("#end") => depth -= 1,
            _ => {}
        }
    }
    unreachable!("a block of a shader has an end: {}", lines[start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_chosen_and_repeated() {
        let text = "a\n#if X\nx\n#for i 0 N\n  v{i} = {i}u;\n#if Y\ny\n#end\n#end\n#else\nno x\n#end\n#if !X\nnot\n#end\nz";
        let lines: Vec<_> = text.lines().collect();
        let expanded = |defines: &[Define]| {
            let mut out = String::new();
            expand(&lines, defines, &[], &mut out);
            out
        };
        assert_eq!(expanded(&[("X", 1), ("N", 2)]), "a\nx\n  v0 = 0u;\n  v1 = 1u;\nz\n");
        assert_eq!(expanded(&[("X", 0), ("N", 2)]), "a\nno x\nnot\nz\n");
        assert_eq!(expanded(&[("X", 1), ("N", 1), ("Y", 7)]), "a\nx\n  v0 = 0u;\ny\nz\n");
    }

    #[test]
    fn a_text_begins_with_its_types_and_constants() {
        let source = Source { name: "s", parts: &["body"], reads: 1, writes: 1 };
        let variant = Variant { width: 4, half: 0b10, defines: vec![("ROWS", 8)] };
        let text = source.text(&variant);
        for line in [
            "enable f16;",
            "alias T = vec4<f32>;",
            "alias S1 = vec4<f16>;",
            "alias S2 = vec4<f32>;",
            "alias E1 = f16;",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.ends_with("const ROWS: u32 = 8u;\nbody\n"), "{text}");
        let plain = source.text(&Variant { width: 1, half: 0, defines: vec![] });
        assert!(!plain.contains("f16") && plain.contains("alias S1 = f32;"), "{plain}");
    }
}
