//! Tests of the pickle machine on pickles written by hand, opcode by opcode.

use super::*;

fn parse(bytes: &[u8]) -> Result<Pickle<'_>> {
    Pickle::parse(bytes, Format::Pickle)
}

#[test]
fn python_2_text_pickle() {
    // {'a': 'x\xff\n', u'b\u20ac': (1, 2L, -3.5, True, None), 'c': [..]} of protocol 0.
    let pickle = parse(
        b"(dp0\nS'a'\np1\nS'x\\xff\\n'\np2\nsVb\\u20ac\np3\n(I1\nL2L\nF-3.5\nI01\nNtp4\nsS\"c\"\n(lp5\ng1\nag2\nas.tail",
    )
    .unwrap();
    let root = pickle.root();
    assert_eq!(pickle.bytes(pickle.entry(root, "a").unwrap()).unwrap(), b"x\xff\n");
    assert_eq!(pickle.text(pickle.entry(root, "a").unwrap()).unwrap(), "x\u{ff}\n");
    let tuple = pickle.sequence(pickle.entry(root, "b\u{20ac}").unwrap()).unwrap();
    assert!(matches!(
        tuple.iter().map(|&r| pickle.get(r)).collect::<Vec<_>>()[..],
        [Value::Int(1), Value::Int(2), Value::Float(-3.5), Value::Bool(true), Value::None]
    ));
    let list = pickle.sequence(pickle.entry(root, "c").unwrap()).unwrap();
    assert_eq!(pickle.text(list[0]).unwrap(), "a");
    assert_eq!(pickle.length, b"(dp0\nS'a'\np1\nS'x\\xff\\n'\np2\nsVb\\u20ac\np3\n(I1\nL2L\nF-3.5\nI01\nNtp4\nsS\"c\"\n(lp5\ng1\nag2\nas.".len());
}

#[test]
fn protocol_4_with_frames_and_memo() {
    // collections.OrderedDict([('k', -1)]) with MEMOIZE and STACK_GLOBAL.
    let bytes = b"\x80\x04\x95\x30\0\0\0\0\0\0\0\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\x8c\x01k\x94J\xff\xff\xff\xffs.";
    let pickle = parse(bytes).unwrap();
    assert!(matches!(pickle.get(pickle.entry(pickle.root(), "k").unwrap()), Value::Int(-1)));
    assert_eq!(pickle.call(pickle.root()).unwrap().0, "collections.OrderedDict");
}

#[test]
fn objects_that_are_not_known_are_named_and_nothing_runs() {
    let error = |bytes: &[u8]| parse(bytes).unwrap_err();
    let e = error(b"\x80\x02cposix\nsystem\nX\x07\0\0\0rm -rf ~\x85R.");
    assert!(matches!(&e, Error::Global { global, .. } if global == "posix.system"), "{e}");
    let e = error(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").to_string();
    assert!(e.contains("`builtins.eval`") && e.contains("state_dict"), "{e}");
    let e = error(b"(S'x'\nios\nsystem\n.");
    assert!(matches!(&e, Error::Global { global, .. } if global == "os.system"), "{e}");
    let e = error(b"\x80\x02\x82\x01.");
    assert!(matches!(e, Error::Opcode { opcode: 0x82, at: 2, .. }), "{e}");
    assert!(error(b"\x80\x02]K\x01\x85R.").to_string().contains("no named object"));
}

#[test]
fn broken_pickles_are_errors() {
    for bytes in [
        &b""[..],
        b"\x80",
        b".",
        b"(",
        b"t.",
        b"0.",
        b"(K\x01s.",
        b"}K\x01s.",
        b"K\x01K\x02a.",
        b"h\x07.",
        b"(K\x01d.",
        b"I12",
        b"Ix\n.",
        b"S'x\n.",
        b"S'\\xg0'\n.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffx.",
        b"\x8b\xff\xff\xff\x7f.",
        b"K\x01K\x02b.",
        b"(o.",
        b"(2.",
        b"\x8a\x11aaaaaaaaaaaaaaaaa.",
    ] {
        assert!(parse(bytes).is_err(), "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn a_cycle_parses_and_memory_is_bounded() {
    // l = []; l.append(l)
    let pickle = parse(b"]q\0h\0a.").unwrap();
    assert_eq!(pickle.sequence(pickle.root()).unwrap(), [pickle.root()]);
    let many = [&vec![b'N'; MAX_VALUES + 1][..], b"."].concat();
    assert!(matches!(parse(&many).unwrap_err(), Error::TooLarge { .. }));
    let marks = [&vec![b'('; MAX_VALUES + 1][..], b"."].concat();
    assert!(matches!(parse(&marks).unwrap_err(), Error::TooLarge { .. }));
}
