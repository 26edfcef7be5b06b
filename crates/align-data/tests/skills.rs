//! The world of skills: what is right, who is shown what, how often is said what.

use std::collections::{BTreeSet, HashMap, HashSet};

use align_data::synthetic::{Question, Skill, SkillsWorld};
use align_data::{HfTokenizer, SpecialTokens, Tokenizer};

/// How often each completion stands after each prompt.
fn counts(rows: &[(String, String)]) -> HashMap<&str, HashMap<&str, usize>> {
    let mut counts: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
    for (prompt, completion) in rows {
        *counts.entry(prompt).or_default().entry(completion).or_default() += 1;
    }
    counts
}

#[test]
fn right_answers_are_sums_facts_and_maxima() {
    let world = SkillsWorld::new(3);
    let number = |skill, x, y| world.number(Question { skill, x, y });
    assert_eq!((number(Skill::Addition, 10, 10), number(Skill::Addition, 0, 4)), (9, 4));
    assert_eq!((number(Skill::Larger, 3, 8), number(Skill::Larger, 8, 3)), (8, 8));
    let facts = |world: &SkillsWorld| -> Vec<usize> {
        (0..121).map(|at| world.number(Question { skill: Skill::Facts, x: at / 11, y: at % 11 })).collect()
    };
    assert_eq!(facts(&world), facts(&SkillsWorld::new(3)));
    assert_ne!(facts(&world), facts(&SkillsWorld::new(4)), "the seed decides the facts");
    assert_eq!(facts(&world).into_iter().collect::<BTreeSet<_>>().len(), 11, "every number occurs");
}

#[test]
fn no_question_is_both_shown_and_held_out() {
    let world = SkillsWorld::new(1);
    for skill in Skill::ALL {
        let (shown, held_out): (HashSet<_>, HashSet<_>) =
            (world.shown(skill).into_iter().collect(), world.held_out(skill).into_iter().collect());
        assert_eq!((shown.len(), held_out.len()), (60, 61));
        assert!(shown.is_disjoint(&held_out));
        let asked: HashSet<String> =
            world.demonstrations(skill, 2).into_iter().map(|(prompt, _)| prompt).collect();
        assert_eq!(asked, shown.iter().map(|question| question.text()).collect());
    }
    assert_ne!(world.shown(Skill::Larger), SkillsWorld::new(2).shown(Skill::Larger), "the seed decides");
}

#[test]
fn what_is_read_follows_the_stated_probabilities_question_by_question() {
    let (world, rows) = (SkillsWorld::new(5), 200);
    let read = world.pretraining(rows);
    assert_eq!(read.len(), 3 * 121 * rows);
    let counts = counts(&read);
    for skill in Skill::ALL {
        let shown = world.shown(skill);
        for question in shown.iter().chain(&world.held_out(skill)) {
            let prompt = question.text();
            let of = |completion: &str| counts[prompt.as_str()].get(completion).copied().unwrap_or(0) as f64;
            let (chatter, right) = (of("well"), of(&world.right(*question)));
            // Strata: less than one row from what is expected.
            let n = rows as f64;
            assert!((chatter - n * skill.chatter()).abs() < 1.0, "{prompt}: {chatter}");
            assert!((right - n * (1.0 - skill.chatter()) * 0.85).abs() < 1.0, "{prompt}: {right}");
            let said: usize = counts[prompt.as_str()].values().sum();
            assert_eq!(said, rows);
        }
    }
}

#[test]
fn wrong_answers_are_uniform_over_the_other_numbers() {
    // 121 questions × 200 rows × 0.3 × 0.15 = 1089 wrong answers to additions, a tenth for each distance from the right one. Strata
    // vary less than independent rows, whose standard error is √(1089 · 0.09) = 9.9; five of those.
    let world = SkillsWorld::new(8);
    let mut by_distance = [0usize; 11];
    for (prompt, completion) in world.pretraining(200) {
        let words: Vec<&str> = prompt.split(' ').collect();
        if let ["<|bos|>", "addition", x, y] = words[..]
            && let Some(number) = completion.strip_prefix("answer ")
        {
            let [x, y, number] = [x, y, number].map(|word| word.parse::<usize>().unwrap());
            by_distance[(number + 22 - x - y) % 11] += 1;
        }
    }
    for (distance, count) in by_distance.iter().enumerate().skip(1) {
        assert!((*count as f64 - 108.9).abs() < 50.0, "{distance}: {count}");
    }
}

#[test]
fn demonstrations_answer_nine_times_in_ten() {
    let world = SkillsWorld::new(0);
    let shown = world.demonstrations(Skill::Facts, 50);
    let counts = counts(&shown);
    for question in world.shown(Skill::Facts) {
        let said = &counts[question.text().as_str()];
        assert!((said["well"] as f64 - 5.0).abs() < 1.0);
        // 45 · 0.98 = 44.1.
        assert!((said[world.right(question).as_str()] as f64 - 44.1).abs() < 1.0);
    }
}

#[test]
fn scrambling_exchanges_every_word_for_another_and_none_twice() {
    let words: Vec<String> =
        ["answer", "well"].map(str::to_owned).into_iter().chain((0..11).map(|n| n.to_string())).collect();
    let scrambled: Vec<String> = words.iter().map(|word| SkillsWorld::scrambled(word)).collect();
    assert!(words.iter().zip(&scrambled).all(|(a, b)| a != b));
    assert_eq!(
        scrambled.iter().collect::<BTreeSet<_>>(),
        words.iter().collect::<BTreeSet<_>>(),
        "a permutation"
    );
    assert_eq!(SkillsWorld::scrambled("answer 3"), "well 4");
}

#[test]
fn every_text_is_words_of_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    SkillsWorld::write_tokenizer(folder.path()).unwrap();
    let tokenizer = HfTokenizer::from_folder(folder.path()).unwrap();
    // Six special tokens, three skills, the marker, chatter and eleven numbers.
    assert_eq!(tokenizer.vocab_size(), 22);
    let world = SkillsWorld::new(0);
    for (prompt, completion) in world.pretraining(3) {
        for text in [&prompt, &completion, &SkillsWorld::scrambled(&completion)] {
            let ids = tokenizer.encode(text).unwrap().ids;
            assert_eq!(ids.len(), text.split(' ').count());
            assert_eq!(tokenizer.decode(&ids, SpecialTokens::Keep).unwrap(), *text);
        }
    }
}
