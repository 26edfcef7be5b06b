//! Tables of strings: the same, or mapped.

use align_fusion::{
    MapCounts, MapOptions, Trailing, Vocabulary, VocabularyError, VocabularyMap, same_vocabulary,
};
use proptest::prelude::*;

fn table(tokens: &[&str]) -> Vocabulary {
    Vocabulary::from_tokens(tokens.iter().copied()).expect("different strings")
}

fn map(base: &[&str], member: &[&str]) -> VocabularyMap {
    VocabularyMap::by_strings(&table(base), &table(member), &MapOptions::default()).expect("something shared")
}

#[test]
fn equal_tables_are_the_same_and_the_first_difference_is_named() {
    let base = table(&["a", "b", "c"]);
    assert_eq!(same_vocabulary(&base, &base.clone(), Trailing::Refused), Ok(()));
    let found = same_vocabulary(&base, &table(&["a", "c", "b", "d"]), Trailing::Tolerated);
    let different = VocabularyError::Different {
        sizes: [3, 4],
        id: 1,
        first: Some("b".into()),
        second: Some("c".into()),
    };
    assert_eq!(found, Err(different.clone()));
    let message = different.to_string();
    assert!(message.contains("[3, 4]") && message.contains(r#"id 1 is "b" in one and "c""#), "{message}");
}

#[test]
fn rows_at_the_end_are_padding_only_when_asked() {
    let (short, long) = (table(&["a", "b"]), table(&["a", "b", "c"]));
    for (first, second) in [(&short, &long), (&long, &short)] {
        assert_eq!(same_vocabulary(first, second, Trailing::Tolerated), Ok(()));
        let refused = same_vocabulary(first, second, Trailing::Refused);
        assert!(matches!(refused, Err(VocabularyError::Different { id: 2, .. })), "{refused:?}");
    }
}

#[test]
fn gaps_count_as_what_they_are() {
    let gap = Vocabulary::from_pairs([("a", 0), ("c", 2)]).expect("different");
    assert_eq!((gap.size(), gap.token(1), gap.token(2)), (3, None, Some("c")));
    let full = table(&["a", "b", "c"]);
    let found = same_vocabulary(&gap, &full, Trailing::Refused);
    assert!(
        matches!(&found, Err(VocabularyError::Different { id: 1, first: None, second: Some(b), .. }) if b == "b"),
        "{found:?}"
    );
    // A row that has no string at the end is still a row.
    let padded = Vocabulary::from_pairs([("a", 0), ("b", 1), ("c", 2)]).expect("different");
    assert_eq!(same_vocabulary(&padded, &full, Trailing::Refused), Ok(()));
}

#[test]
fn tables_that_contradict_themselves_are_refused() {
    let twice = Vocabulary::from_pairs([("a", 4), ("b", 4)]);
    assert_eq!(twice, Err(VocabularyError::TwoStrings { id: 4, first: "a".into(), second: "b".into() }));
    let again = Vocabulary::from_tokens(["a", "b", "a"]);
    assert_eq!(again, Err(VocabularyError::TwoIds { token: "a".into(), first: 0, second: 2 }));
    assert!(Vocabulary::from_pairs([("a", 4), ("a", 4)]).is_ok());
}

#[test]
fn tokens_are_paired_by_string_and_counted() {
    let map = map(&["a", "ab", "?", "b"], &["b", "c", "a"]);
    assert_eq!([0, 1, 2, 3, 4].map(|id| map.partner(id)), [Some(2), None, None, Some(0), None]);
    assert_eq!(map.reading(1), [2, 0]);
    assert_eq!(map.reading(0), [2]);
    let counts = MapCounts { shared: 2, base_only: 2, member_only: 1, spelt: 1, unreadable: 1 };
    assert_eq!(map.counts(), counts);
    assert_eq!(map.check(&[0, 1, 3]), Ok(()));
    let unreadable = VocabularyError::Unreadable { position: 2, id: 2, token: Some("?".into()) };
    assert_eq!(map.check(&[0, 1, 2]), Err(unreadable));
}

#[test]
fn given_pairs_come_first_and_special_tokens_are_never_spelt() {
    let (base, member) = (table(&["<s>", "<", "s", ">"]), table(&["s", ">", "<", "[BOS]"]));
    let spelt = VocabularyMap::by_strings(&base, &member, &MapOptions::default()).expect("shared");
    assert_eq!(spelt.reading(0), [2, 0, 1]);
    let special = MapOptions { special: vec![0], ..MapOptions::default() };
    let refused = VocabularyMap::by_strings(&base, &member, &special).expect("shared");
    assert!(refused.reading(0).is_empty());
    let paired = MapOptions { pairs: vec![(0, 3)], special: vec![0] };
    let paired = VocabularyMap::by_strings(&base, &member, &paired).expect("shared");
    assert_eq!((paired.reading(0), paired.counts().shared), (&[3][..], 4));

    for pairs in [vec![(4, 0)], vec![(0, 4)], vec![(0, 1), (0, 2)], vec![(0, 1), (1, 1)]] {
        let options = MapOptions { pairs, special: vec![] };
        let found = VocabularyMap::by_strings(&base, &member, &options);
        assert!(matches!(found, Err(VocabularyError::CannotPair { .. })), "{found:?}");
    }
}

#[test]
fn a_string_that_was_paired_away_is_not_taken_twice() {
    let options = MapOptions { pairs: vec![(0, 1)], special: vec![] };
    let map = VocabularyMap::by_strings(&table(&["x", "b"]), &table(&["a", "b"]), &options).expect("shared");
    // The member's "b" is the base's "x" now; the base's "b" is spelt by it, and never scored.
    assert_eq!((map.partner(0), map.partner(1), map.reading(1)), (Some(1), None, &[1][..]));
}

#[test]
fn nothing_in_common_is_refused() {
    let found = VocabularyMap::by_strings(&table(&["Ġa"]), &table(&["▁a", "b"]), &MapOptions::default());
    assert_eq!(found.err(), Some(VocabularyError::NothingShared { sizes: [1, 2] }));
}

/// The fewest pieces, by trying all first pieces.
fn fewest(text: &str, pieces: &[String]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    let rest = pieces.iter().filter_map(|piece| text.strip_prefix(piece.as_str()));
    rest.filter_map(|rest| Some(1 + fewest(rest, pieces)?)).min()
}

proptest! {
    #[test]
    fn a_spelling_is_the_text_in_the_fewest_pieces(
        text in "[abé]{1,7}",
        pieces in proptest::collection::btree_set("[abé]{1,3}", 1..8),
    ) {
        let mut pieces: Vec<String> = pieces.into_iter().filter(|piece| *piece != text).collect();
        pieces.push("shared".into());
        let base = Vocabulary::from_tokens([text.clone(), "shared".into()]).unwrap();
        let member = Vocabulary::from_tokens(pieces.clone()).unwrap();
        let map = VocabularyMap::by_strings(&base, &member, &MapOptions::default()).unwrap();
        let reading = map.reading(0);
        match fewest(&text, &pieces) {
            None => prop_assert!(reading.is_empty()),
            Some(count) => {
                prop_assert_eq!(reading.len(), count);
                let spelt: String = reading.iter().map(|&id| pieces[id as usize].as_str()).collect();
                prop_assert_eq!(spelt, text);
            }
        }
    }
}
