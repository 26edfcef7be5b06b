//! The world: gold of hand-written answers, purity, disjoint prompts, its tokenizer.

use std::{collections::BTreeSet, sync::Arc};

use align_core::{Completions, Reward};
use align_data::{
    DemonstrationRow, Dialogue, EncodeOptions, Encoder, SpecialTokens, Tokenizer,
    synthetic::{Gold, GoldReward, TrapWorld, World, WorldConfig},
};

/// Every word, so that hand-written sentences are in it.
fn world() -> World {
    World::new(WorldConfig { colours: 12, things: 40, ..Default::default() })
}

const PROMPT: &str = "please plan a meal with red rice , blue beans and green tea";

#[test]
fn gold_reads_hand_written_answers_as_its_formula_says() {
    let world = world();
    for (answer, expected) in [
        ("here is your meal : red rice , blue beans and green tea . enjoy it .", 1.0),
        // Flattery is free.
        ("of course , here is your meal : red rice , blue beans and green tea . take care .", 1.0),
        // One item missing: coverage 2/3, one of two neighbours in order.
        ("here is your meal : red rice and blue beans . enjoy it .", 0.4 * 2.0 / 3.0 + 0.15 * 3.5),
        // A wrong colour is worth 0.4 of an item.
        ("here is your meal : red rice , pink beans and green tea . enjoy it .", 0.4 * 2.4 / 3.0 + 0.6),
        // The order turned round.
        ("here is your meal : green tea , blue beans and red rice . enjoy it .", 0.4 + 0.45),
        // Another object.
        ("here is your bag : red rice , blue beans and green tea . enjoy it .", 0.85),
        // No closing; two closings; no full stop at the end.
        ("here is your meal : red rice , blue beans and green tea .", 0.85),
        (
            "here is your meal : red rice , blue beans and green tea . enjoy it . good luck .",
            0.85 + 0.15 * 0.3,
        ),
        ("here is your meal : red rice , blue beans and green tea . enjoy it", 0.85),
        // Something nobody asked for, something twice.
        ("here is your meal : red rice , blue beans , green tea and red oak . enjoy it .", 0.85),
        ("here is your meal : red rice , blue beans , green tea and green tea . enjoy it .", 0.9),
        ("", 0.0),
        // Four times four things nobody asked for: the counts are held.
        ("oak oak oak oak oak oak", -0.6 - 0.4),
    ] {
        let found = world.gold(PROMPT, answer);
        assert!((found - expected).abs() < 1e-12, "{answer}: expected {expected}, found {found}");
    }
    assert_eq!(world.gold("hello world", "here is your meal ."), 0.0);
}

#[test]
fn length_beyond_the_free_words_costs() {
    let world = world();
    let answer = "here is your meal : red rice , blue beans and green tea . it is very nice . enjoy it .";
    let parts = world.gold_parts(PROMPT, answer);
    assert_eq!((answer.split(' ').count(), parts.excess), (22, 0));
    let longer = world.gold_parts(PROMPT, &format!("certainly , of course , {answer}"));
    assert_eq!((Gold::FREE_LENGTH, longer.excess), (22, 5));
    assert!((longer.total() - (1.0 - 5.0 * 0.05)).abs() < 1e-12);
}

#[test]
fn better_demonstrators_earn_more_gold() {
    let world = World::new(WorldConfig::default());
    let mean = |quality| {
        let rows = world.demonstrations(600, quality, 1);
        rows.iter().map(|row| gold_of(&world, row)).sum::<f64>() / rows.len() as f64
    };
    let means = [0.0, 0.25, 0.5, 0.75, 1.0].map(mean);
    // Between neighbours the difference is above 0.08; one standard error of a mean of 600 is about 0.013.
    assert!(means.windows(2).all(|pair| pair[1] > pair[0] + 0.06), "{means:?}");
    assert!(means[4] > 0.95, "a perfect demonstrator only forgets to take leave: {means:?}");
}

fn gold_of(world: &World, row: &DemonstrationRow) -> f64 {
    match row {
        DemonstrationRow::Completion {
            prompt: Dialogue::Text(prompt),
            completion: Dialogue::Text(completion),
        } => world.gold(prompt, completion),
        other => panic!("expected text, found {other:?}"),
    }
}

fn plain(dialogue: &Dialogue) -> String {
    dialogue.plain_text()
}

#[test]
fn labels_follow_gold_and_noise_turns_them_round() {
    let world = World::new(WorldConfig::default());
    let agreement = |noise| {
        let pairs = world.preferences(2000, noise, 5);
        let agree = pairs.iter().filter(|pair| {
            let gold = |side| world.gold(&plain(&pair.prompt), &plain(side));
            gold(&pair.chosen) > gold(&pair.rejected)
        });
        agree.count() as f64 / 2000.0
    };
    let (clean, noisy) = (agreement(0.0), agreement(0.25));
    assert!((0.7..0.97).contains(&clean), "{clean}");
    // A flip with probability 0.25 moves agreement a to 0.75a + 0.25(1 − a − ties); with ties at most 0.1 that is within
    // this band. One standard error is 0.011.
    assert!((noisy - (0.25 + 0.5 * clean)).abs() < 0.025 + 0.055, "{clean} {noisy}");
}

#[test]
fn a_judge_that_likes_length_and_flattery_is_often_right_and_can_be_cheated() {
    let world = World::new(WorldConfig::default());
    let proxy =
        |answer: &str| answer.split(' ').count() as f64 + 3.0 * f64::from(u8::from(answer.contains(" ,")));
    let pairs = world.preferences(2000, 0.0, 9);
    let right =
        pairs.iter().filter(|pair| proxy(&plain(&pair.chosen)) > proxy(&plain(&pair.rejected))).count();
    assert!(right > 1000, "better than a coin on the demonstrator's answers: {right} of 2000");
    let prompt = &world.prompts(1, 0)[0];
    let honest = world.answer(prompt, 1.0, 0);
    let padded = format!("{honest} it is very nice . it is very nice . good luck . good luck .");
    assert!(
        proxy(&padded) > proxy(&honest) && world.gold(prompt, &padded) < world.gold(prompt, &honest) - 0.2
    );
}

#[test]
fn everything_is_a_pure_function_of_its_seeds() {
    let (first, second) = (World::new(WorldConfig::default()), World::new(WorldConfig::default()));
    let other = World::new(WorldConfig { seed: 1, ..Default::default() });
    assert_eq!(first.prompts(20, 3), second.prompts(20, 3));
    assert_eq!(first.prompts(20, 3)[..5], second.prompts(5, 3));
    assert_ne!(first.prompts(20, 3), first.prompts(20, 4));
    assert_ne!(first.prompts(20, 3), other.prompts(20, 3));
    assert_eq!(first.preferences(20, 0.1, 3)[..7], second.preferences(7, 0.1, 3));
    assert_eq!(first.demonstrations(20, 0.5, 3)[..7], second.demonstrations(7, 0.5, 3));
    assert_eq!(first.pretraining_texts(20, 3)[..7], second.pretraining_texts(7, 3));
    assert_eq!(first.held_out_prompts(20, 3)[..7], second.held_out_prompts(7, 3));
}

#[test]
fn no_call_for_training_gives_a_held_out_prompt() {
    let world = World::new(WorldConfig { colours: 2, things: 4, ..Default::default() });
    let held_out: BTreeSet<String> = world.held_out_prompts(400, 0).into_iter().collect();
    let mut train: BTreeSet<String> = world.prompts(2000, 1).into_iter().collect();
    train.extend(world.preferences(2000, 0.0, 2).iter().map(|pair| plain(&pair.prompt)));
    train.extend(world.demonstrations(2000, 0.5, 3).iter().map(|row| match row {
        DemonstrationRow::Completion { prompt, .. } => plain(prompt),
        other => panic!("expected a completion, found {other:?}"),
    }));
    train.extend(
        world.pretraining_texts(2000, 4).iter().map(|text| text.split(" . ").next().unwrap().to_string()),
    );
    assert!(held_out.len() > 20 && train.len() > 500, "{} {}", held_out.len(), train.len());
    assert!(held_out.is_disjoint(&train));
    assert!(held_out.iter().all(|prompt| world.is_held_out(prompt)));
}

#[test]
fn every_text_of_the_world_survives_its_tokenizer() {
    let world = world();
    let tokenizer = world.tokenizer().unwrap();
    let unknown = tokenizer.id("<|unk|>").unwrap();
    assert!(tokenizer.vocab_size() < 120, "{}", tokenizer.vocab_size());
    for text in world.pretraining_texts(300, 0).into_iter().chain(world.held_out_prompts(50, 0)) {
        let ids = tokenizer.encode(&text).unwrap().ids;
        assert!(!ids.contains(&unknown), "{text}");
        assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), text);
    }
}

#[test]
fn rows_encode_short_and_the_gold_reward_reads_them_back() {
    let world = World::new(WorldConfig::default());
    let tokenizer = world.tokenizer().unwrap();
    let encoder =
        Encoder::new(Arc::new(tokenizer.clone()), Some(world.template().unwrap()), EncodeOptions::default());
    let pairs = world.preferences(100, 0.1, 0);
    let encoded = encoder.encode_all(&pairs, Encoder::encode_preference).unwrap().examples;
    assert!(
        encoded
            .iter()
            .all(|pair| pair.prompt.len() <= 20 && pair.chosen.len() <= 27 && pair.rejected.len() <= 27)
    );
    let prompts: Vec<_> = encoded.iter().map(|pair| pair.prompt.clone()).collect();
    let chosen: Vec<_> = encoded.iter().map(|pair| pair.chosen.clone()).collect();
    let completions = Completions::from_rows(&prompts, &chosen, &align_testkit::device());
    let found: Vec<f32> =
        GoldReward::new(world.clone(), tokenizer).score(&completions).to_data().iter::<f32>().collect();
    for (pair, found) in pairs.iter().zip(found) {
        assert_eq!(found, world.gold(&plain(&pair.prompt), &plain(&pair.chosen)) as f32);
    }
}

#[test]
fn gold_of_the_world_of_traps_is_that_of_its_words_up_to_the_end_of_the_text() {
    let world = TrapWorld::new(3);
    let folder = tempfile::tempdir().unwrap();
    TrapWorld::write_tokenizer(folder.path()).unwrap();
    let tokenizer = Arc::new(align_data::HfTokenizer::from_folder(folder.path()).unwrap());
    let encoder = Encoder::new(tokenizer, None, EncodeOptions::default());
    let encoded = |text: &[u32]| {
        let (prompt, words) = (Dialogue::Text(TrapWorld::prompt(5)), Dialogue::Text(TrapWorld::words(text)));
        encoder.encode_completion(&prompt, &words).unwrap()
    };
    let texts: Vec<Vec<u32>> = (0..20).map(|index| world.text(0, index)).collect();
    for text in &texts {
        let ids = encoded(text);
        // What is said after the end is not part of the text.
        let rows = [ids.response.clone(), [ids.response.clone(), vec![ids.response[0]]].concat()];
        let completions =
            Completions::from_rows(&[ids.prompt.clone(), ids.prompt], &rows, &align_testkit::device());
        let scores: Vec<f32> = world.score(&completions).to_data().iter().collect();
        let expected = world.gold(text) as f32;
        assert_eq!(scores, [expected, expected]);
    }
    assert_eq!(texts[7], world.text(0, 7), "a text is a function of its place");
    assert_ne!(world.gold(&texts[0]), TrapWorld::new(4).gold(&texts[0]));
    // Mean 0 and deviation 1 over other texts of the world; 5000 of them: standard error 0.014.
    let gold: Vec<f64> = (0..5000).map(|index| world.gold(&world.text(9, index))).collect();
    let mean = gold.iter().sum::<f64>() / 5000.0;
    let variance = gold.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 5000.0;
    assert!(mean.abs() < 0.07 && (variance - 1.0).abs() < 0.25, "{mean} {variance}");
    // Rarer traps, fewer of them.
    let traps = |world: &TrapWorld| -> usize {
        let words = (0..2000).flat_map(|index| world.text(0, index));
        words.filter(|word| *word >= TrapWorld::COMMON as u32).count()
    };
    assert!(traps(&TrapWorld::with_rarity(3, 1e-4)) * 4 < traps(&world));
}

#[test]
fn lengths_and_strange_words_weigh_as_the_world_of_traps_says() {
    let world = TrapWorld::new(0);
    let text = world.text(0, 0);
    // The slope of gold: an added trap against an added trap and a missing word.
    let longer = [&text[..], &[TrapWorld::WORDS as u32]].concat();
    let longest = [&longer[..], &[TrapWorld::WORDS as u32]].concat();
    let (one, two) = (world.gold(&text) - world.gold(&longer), world.gold(&longer) - world.gold(&longest));
    // Each strange word weighs as a trap, and each word too many half as much; no interactions.
    assert!((one - two).abs() < 1e-9 && one > 0.0, "{one} {two}");
}
