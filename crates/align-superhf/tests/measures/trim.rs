//! Where an answer ends: the published cuts, and those that keep honest answers whole.

use align_superhf::trim::{Marker, TurnMarkers};
use proptest::prelude::*;

const RELEASED: [(&str, &str); 5] = [
    (" Sure, here it is.\n\nHuman: and now?", "Sure, here it is."),
    (" The Human body has 206 bones.", "The"),
    (" Steps:\n\nFirst: mix\n\nSecond: bake", "Steps:"),
    (" \n\nHuman: hi", ""),
    (" I am an AI Assistant.", "I am an AI"),
];

#[test]
fn the_released_pattern_cuts_as_published_even_honest_answers() {
    let released = TurnMarkers::released();
    for (text, answer) in RELEASED {
        assert_eq!(released.trim(text), answer);
    }
    assert_eq!(released.cut(RELEASED[0].0), Some(18), "at the blank line");
    // `[^:]+` needs a character before the colon, and may span lines.
    for (text, cut) in [
        ("a\n\n:", None),
        ("a\n\n\n:", Some(1)),
        ("a\n\nb", None),
        ("a\n\n:\n\nb\nc:", Some(4)),
        ("é\n\né:", Some(2)),
    ] {
        assert_eq!(released.cut(text), cut, "{text:?}");
    }
}

#[test]
fn the_default_markers_keep_honest_answers_whole() {
    let markers = TurnMarkers::default();
    for (place, (text, answer)) in RELEASED.into_iter().enumerate() {
        let honest = [1, 2, 4].contains(&place);
        assert_eq!(markers.trim(text), if honest { text.trim() } else { answer });
        assert_eq!(markers.cut(text).is_none(), honest);
    }
    for honest in
        ["Ask a\nHumane: society", "host: x\nuser: root", "The User: a study", "Users:\nAnn", "a < b | c > d"]
    {
        assert_eq!(markers.cut(honest), None, "{honest:?}");
    }
}

#[test]
fn the_default_markers_cut_at_the_first_turn() {
    let markers = TurnMarkers::default();
    for (text, answer, cut) in [
        ("Yes.\nUser: why?\nAssistant: so", "Yes.", 5),
        ("Yes.\r\n  User: why?", "Yes.", 8),
        ("Human: hi", "", 0),
        ("Fine.<|im_end|>\n<|im_start|>user", "Fine.", 5),
        ("Été.\n\n### Instruction:\nnext", "Été.", 8),
        ("A<|user|>b\nHuman: c", "A", 1),
    ] {
        assert_eq!((markers.trim(text), markers.cut(text)), (answer, Some(cut)), "{text:?}");
    }
    assert_eq!(markers.trim(""), "");
}

#[test]
fn each_setting_of_the_markers_cuts_something_else() {
    let read = |settings: &str| toml::from_str::<TurnMarkers>(settings).expect("settings");
    let text = "Hm.\n Q: why\n\nSo there: Human";
    assert_eq!(read("").cut(text), None);
    assert_eq!(read("line_start = ['Q:']").trim(text), "Hm.");
    assert_eq!(read("line_start = [' Q:']").cut(text), Some(4), "white space of a marker is its own");
    assert_eq!(read("anywhere = ['why', 'Human']").trim(text), "Hm.\n Q:");
    assert_eq!(read("blank_line_and_colon = true").trim(text), "Hm.\n Q: why");
    let none = read("line_start = []\nanywhere = []");
    assert_eq!(none.trim(" a\nHuman: b "), "a\nHuman: b");
}

#[test]
fn markers_survive_a_round_trip_and_refuse_what_they_do_not_know() {
    for markers in [TurnMarkers::default(), TurnMarkers::released()] {
        let written = toml::to_string(&markers).expect("a table");
        assert_eq!(toml::from_str::<TurnMarkers>(&written).expect("what was written"), markers);
    }
    let refusal = |settings: &str| toml::from_str::<TurnMarkers>(settings).unwrap_err().to_string();
    assert!(refusal("lines = []").contains("unknown field `lines`"));
    let empty =
        "expected a turn marker of at least one character, found none: it would cut every answer to nothing";
    assert!(refusal("anywhere = ['']").contains(empty));
    assert_eq!(Marker::try_from(String::new()).unwrap_err().to_string(), empty);
}

/// The released regular expression `\n\n[^:]+:|Human|Assistant`, tried at each place in turn.
fn released_naively(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|&place| {
        let rest = &bytes[place..];
        let blank = rest.starts_with(b"\n\n") && {
            let until = rest[2..].iter().take_while(|byte| **byte != b':').count();
            until > 0 && rest.get(2 + until) == Some(&b':')
        };
        blank || rest.starts_with(b"Human") || rest.starts_with(b"Assistant")
    })
}

proptest! {
    #[test]
    fn the_released_pattern_is_its_regular_expression(
        parts in prop::collection::vec(prop::sample::select(&["\n", "\n\n", ":", "Human", "Assistant", "é", " ", "a"][..]), 0..12),
    ) {
        let text = parts.concat();
        prop_assert_eq!(TurnMarkers::released().cut(&text), released_naively(&text), "{:?}", text);
    }

    #[test]
    fn an_answer_that_was_trimmed_has_no_turn_left(
        parts in prop::collection::vec(prop::sample::select(&["\n", " ", "Human:", "User: ", "<|user|>", "x", "é\n"][..]), 0..12),
    ) {
        for markers in [TurnMarkers::default(), TurnMarkers::released()] {
            let text = parts.concat();
            let answer = markers.trim(&text);
            prop_assert_eq!(markers.cut(answer), None, "{:?}", text);
        }
    }
}
