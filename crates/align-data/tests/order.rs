//! Laws of the order of rows: every row once an epoch, and a saved place gives the same rest.

use std::{collections::BTreeSet, convert::Infallible};

use align_data::{
    Batches, Cursor, DemonstrationRow, Dialogue, FromRow, Message, Role, WindowShuffle, is_held_out,
    order::permutation, split_by_prompt,
};
use proptest::prelude::*;

type Source = std::iter::Map<std::ops::Range<usize>, fn(usize) -> Result<usize, Infallible>>;

fn shuffled(
    rows: usize,
    window: usize,
    seed: u64,
) -> WindowShuffle<usize, Infallible, Source, impl Fn() -> Result<Source, Infallible>> {
    WindowShuffle::new(move || Ok((0..rows).map(Ok as fn(usize) -> _)), window, seed)
}

proptest! {
    #[test]
    fn a_permutation_visits_every_row_once(rows in 0usize..300, seed in any::<u64>(), epoch in 0u64..9) {
        let mut order = permutation(rows, seed, epoch);
        order.sort_unstable();
        prop_assert_eq!(order, (0..rows).collect::<Vec<_>>());
    }

    #[test]
    fn batches_cover_each_epoch_and_are_functions_of_their_number(
        rows in 1usize..40, size in 1usize..17, seed in any::<u64>(), at in 0u64..30,
    ) {
        let visits: Vec<usize> = Batches::new(rows, size, seed).take(3 * rows).flatten().collect();
        for epoch in visits.chunks(rows).take(3) {
            prop_assert_eq!(epoch.iter().copied().collect::<BTreeSet<_>>().len(), rows);
        }
        let straight: Vec<_> = Batches::new(rows, size, seed).skip(at as usize).take(4).collect();
        let resumed: Vec<_> = Batches::new(rows, size, seed).starting_at(at).take(4).collect();
        prop_assert_eq!(straight, resumed);
        let cursor = Batches::new(rows, size, seed).starting_at(at).cursor();
        prop_assert_eq!(cursor.epoch * rows as u64 + cursor.row, at * size as u64);
    }

    #[test]
    fn windows_cover_each_epoch(rows in 1usize..60, window in 1usize..25, seed in any::<u64>()) {
        let mut stream = shuffled(rows, window, seed);
        for epoch in 0..3 {
            let mut seen = Vec::new();
            while let Some(row) = stream.next_row().unwrap() {
                // No row travels further than a window.
                prop_assert!(row.abs_diff(seen.len()) < window);
                seen.push(row);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
            prop_assert_eq!(stream.cursor(), Cursor { epoch: epoch + 1, row: 0 });
        }
    }

    #[test]
    fn a_restored_cursor_gives_the_same_rest(
        rows in 1usize..60, window in 1usize..25, seed in any::<u64>(), steps in 0usize..150,
    ) {
        let mut first = shuffled(rows, window, seed);
        for _ in 0..steps {
            first.next_row().unwrap();
        }
        let saved: Cursor = serde_json::from_str(&serde_json::to_string(&first.cursor()).unwrap()).unwrap();
        let mut second = shuffled(rows, window, seed);
        prop_assert!(second.restore(saved).unwrap());
        for _ in 0..2 * rows + 3 {
            prop_assert_eq!(first.next_row().unwrap(), second.next_row().unwrap());
            prop_assert_eq!(first.cursor(), second.cursor());
        }
    }

    #[test]
    fn no_prompt_stands_on_both_sides(prompts in prop::collection::vec(0u8..40, 1..200), seed in any::<u64>()) {
        let split = split_by_prompt(prompts.clone(), |prompt| prompt.to_string(), 0.3, seed);
        let side = |rows: &[u8]| rows.iter().copied().collect::<BTreeSet<_>>();
        prop_assert!(side(&split.train).is_disjoint(&side(&split.held_out)));
        prop_assert_eq!(split.train.len() + split.held_out.len(), prompts.len());
    }
}

#[test]
fn a_cursor_beyond_the_data_is_noticed() {
    assert!(!shuffled(5, 2, 0).restore(Cursor { epoch: 1, row: 6 }).unwrap());
    assert!(shuffled(5, 2, 0).restore(Cursor { epoch: 1, row: 5 }).unwrap());
}

#[test]
fn epochs_and_seeds_have_orders_of_their_own() {
    // 20 rows have 2.4e18 orders; two equal ones would be no accident.
    let base = permutation(20, 1, 0);
    assert_eq!(base, permutation(20, 1, 0));
    assert_ne!(base, permutation(20, 1, 1));
    assert_ne!(base, permutation(20, 2, 0));
}

#[test]
fn the_split_takes_its_share() {
    // n = 20 000 at 0.1: one standard error is 0.0021; five of them, fixed seed.
    let held_out = (0..20_000).filter(|prompt| is_held_out(&format!("prompt {prompt}"), 0.1, 3)).count();
    assert!((held_out as f64 / 20_000.0 - 0.1).abs() < 5.0 * 0.0021, "{held_out}");
}

#[test]
fn a_question_is_the_same_prompt_as_text_and_as_a_message() {
    let text = Dialogue::Text("How? ".into());
    let turn = Dialogue::Messages(vec![Message::new(Role::User, "How?")]);
    assert_eq!(text.key(), turn.key());
    assert_ne!(turn.key(), Dialogue::Messages(vec![Message::new(Role::System, "How?")]).key());
}

#[test]
fn rows_without_a_prompt_are_split_by_what_they_say() {
    let turn = |role, text: String| Message::new(role, text);
    let texts = (0..200).map(|row| DemonstrationRow::Text { text: format!("text {row}") });
    let dialogues = (0..200).map(|row| DemonstrationRow::Messages {
        // Two answers to each question.
        messages: vec![
            turn(Role::User, format!("question {}", row / 2)),
            turn(Role::Assistant, format!("answer {row}")),
        ],
        tools: None,
    });
    for rows in [texts.collect::<Vec<_>>(), dialogues.collect()] {
        let split = split_by_prompt(rows, FromRow::key, 0.25, 0);
        assert!((20..80).contains(&split.held_out.len()), "{}", split.held_out.len());
        let keys = |rows: &[DemonstrationRow]| rows.iter().map(FromRow::key).collect::<BTreeSet<_>>();
        assert!(keys(&split.train).is_disjoint(&keys(&split.held_out)));
    }
}
