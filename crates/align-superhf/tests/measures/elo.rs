//! Elo ratings: the published updates, conservation, and means over orders.

use align_core::Draws;
use align_core::number::Positive;
use align_superhf::elo::{Elo, EloError, Game, Outcome, expected_score};
use proptest::prelude::*;

use crate::{close, count};

#[test]
fn elo_updates_of_the_published_case() {
    let elo = Elo::default();
    for (ratings, outcome, after) in [
        ([1500.0, 1500.0], Outcome::Win, [1516.0, 1484.0]),
        ([1600.0, 1500.0], Outcome::Win, [1611.517920, 1488.482080]),
        ([1600.0, 1500.0], Outcome::Loss, [1579.517920, 1520.482080]),
        ([1500.0, 1500.0], Outcome::Draw, [1500.0, 1500.0]),
    ] {
        let found = elo.update(ratings, outcome);
        close(found[0], after[0], 5e-7); // printed to six decimals
        close(found[1], after[1], 5e-7);
    }
    // 400 points are a factor of ten.
    close(expected_score(1900.0, 1500.0), 10.0 / 11.0, 1e-15);
}

#[test]
fn each_setting_of_elo_acts() {
    let elo: Elo = toml::from_str("start = 0.0\nk = 10.0").expect("settings");
    let game = Game { first: 0, second: 1, outcome: Outcome::Win };
    assert_eq!(elo.ratings(3, &[game]), Ok(vec![5.0, -5.0, 0.0]));
    assert_eq!(toml::from_str::<Elo>("").expect("defaults"), Elo::default());
    assert!(
        toml::from_str::<Elo>("k = 0.0")
            .unwrap_err()
            .to_string()
            .contains("expected a finite number > 0, found 0")
    );
    assert!(toml::from_str::<Elo>("kay = 1.0").is_err());
}

#[test]
fn games_that_cannot_be_are_refused_by_their_place() {
    let elo = Elo::default();
    let fine = Game { first: 0, second: 1, outcome: Outcome::Win };
    let refusal = |bad| {
        let error = elo.ratings(2, &[fine, bad]).unwrap_err();
        assert_eq!(elo.mean_ratings(2, &[fine, bad], count(3), &Draws::new(7)), Err(error));
        error
    };
    let unknown = refusal(Game { second: 2, ..fine });
    assert_eq!(unknown, EloError::UnknownPlayer { game: 1, player: 2, players: 2 });
    assert_eq!(
        unknown.to_string(),
        "game 1 is of player 2, expected a number below 2, the number of players"
    );
    let alone = refusal(Game { first: 1, ..fine });
    assert_eq!(alone, EloError::OnePlayer { game: 1, player: 1 });
    assert_eq!(alone.to_string(), "game 1 is of player 1 against itself, expected two players");
    assert_eq!(elo.ratings(2, &[]), Ok(vec![1500.0, 1500.0]));
}

#[test]
fn the_mean_over_orders_is_that_over_all_orders() {
    // Three games that cannot be told apart from outside: a beats b, b beats c, c beats a. Six orders, found by listing
    // them; the mean of 3000 random ones is within five standard errors.
    let games = [(0, 1), (1, 2), (2, 0)].map(|(first, second)| Game { first, second, outcome: Outcome::Win });
    let elo = Elo { k: Positive::literal(200.0), ..Elo::default() };
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let finals = orders.map(|order| elo.ratings(3, &order.map(|game| games[game])).expect("games"));
    let found = elo.mean_ratings(3, &games, count(3000), &Draws::new(7)).expect("games");
    for player in 0..3 {
        let all: Vec<f64> = finals.iter().map(|ratings| ratings[player]).collect();
        let mean = all.iter().sum::<f64>() / 6.0;
        let deviation = (all.iter().map(|rating| (rating - mean).powi(2)).sum::<f64>() / 6.0).sqrt();
        assert!(deviation > 10.0, "the order matters");
        close(found[player], mean, 5.0 * deviation / 3000f64.sqrt());
    }
}

fn games() -> impl Strategy<Value = Vec<Game>> {
    let outcome = prop::sample::select(&[Outcome::Win, Outcome::Draw, Outcome::Loss][..]);
    let game = (0usize..5, 1usize..5, outcome).prop_map(|(first, step, outcome)| Game {
        first,
        second: (first + step) % 5,
        outcome,
    });
    prop::collection::vec(game, 0..30)
}

proptest! {
    #[test]
    fn points_move_between_players_and_none_arise(games in games()) {
        let elo = Elo::default();
        let in_order = elo.ratings(5, &games).expect("games");
        let averaged = elo.mean_ratings(5, &games, count(4), &Draws::new(1)).expect("games");
        // Sums of 7500 with a spacing of 2e-13, and thirty games.
        close(in_order.iter().sum(), 7500.0, 1e-10);
        close(averaged.iter().sum(), 7500.0, 1e-10);
    }

    #[test]
    fn how_games_are_listed_does_not_change_their_mean(games in games()) {
        let elo = Elo::default();
        let mean = |games: &[Game]| elo.mean_ratings(5, games, count(3), &Draws::new(9)).expect("games");
        let turned: Vec<Game> = games
            .iter()
            .rev()
            .map(|game| Game { first: game.second, second: game.first, outcome: game.outcome.reversed() })
            .collect();
        prop_assert_eq!(mean(&games), mean(&turned));
    }

    #[test]
    fn the_winner_gains_at_most_k_and_the_more_the_less_it_was_expected((a, b) in (1000.0f64..2000.0, 1000.0f64..2000.0)) {
        let gain = |a: f64, b: f64| Elo::default().update([a, b], Outcome::Win)[0] - a;
        prop_assert!(gain(a, b) > 0.0 && gain(a, b) < 32.0);
        prop_assert!(gain(a + 50.0, b) < gain(a, b));
    }
}
