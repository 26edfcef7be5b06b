//! Elo ratings: how strong each of several policies is, from games between two of them.
//!
//! A game is a judge's choice between two answers. With ratings R_a and R_b, player a is expected to score
//!
//! ```text
//! E_a = 1 / (1 + 10^((R_b − R_a)/400)),     R_a ← R_a + k·(S_a − E_a),     R_b ← R_b − k·(S_a − E_a)
//! ```
//!
//! with S_a = 1 for a win, ½ for a draw and 0 for a loss. Points move between the players, none arise. The last games
//! weigh most, so ratings are averaged over random orders of the games. Ratings say who wins more often against whom
//! was met; with few games a pair the differences are mostly noise.
//!
//! # Source
//! Elo 1978, "The rating of chessplayers, past and present"; with 1500, k = 32 and 1000 orders as in the released code of
//! Mukobi et al. 2023, <https://arxiv.org/abs/2310.16763>, which leaves draws out.
//!
//! # Examples
//! ```
//! use std::num::NonZeroUsize;
//!
//! use align_core::Draws;
//! use align_superhf::elo::{Elo, Game, Outcome};
//!
//! let elo = Elo::default();
//! assert_eq!(elo.update([1500.0, 1500.0], Outcome::Win), [1516.0, 1484.0]);
//!
//! let games = [
//!     Game { first: 0, second: 1, outcome: Outcome::Win },
//!     Game { first: 1, second: 2, outcome: Outcome::Win },
//!     Game { first: 2, second: 0, outcome: Outcome::Loss },
//! ];
//! let ratings = elo.mean_ratings(3, &games, NonZeroUsize::new(1000).unwrap(), &Draws::new(7))?;
//! assert!(ratings[0] > ratings[1] && ratings[1] > ratings[2]);
//! # Ok::<(), align_superhf::elo::EloError>(())
//! ```

use std::num::NonZeroUsize;

use align_core::draws::{Draws, Purpose};
use align_core::number::{Finite, Positive};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// How a game ended for its first player.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The first player won.
    Win,
    /// Neither won.
    Draw,
    /// The second player won.
    Loss,
}

impl Outcome {
    /// S: 1 for a win, ½ for a draw, 0 for a loss.
    pub fn score(self) -> f64 {
        match self {
            Self::Win => 1.0,
            Self::Draw => 0.5,
            Self::Loss => 0.0,
        }
    }

    /// The same outcome as the other player sees it.
    pub fn reversed(self) -> Self {
        match self {
            Self::Win => Self::Loss,
            Self::Draw => Self::Draw,
            Self::Loss => Self::Win,
        }
    }
}

/// One game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Game {
    /// A player, by its place.
    pub first: usize,
    /// Another player.
    pub second: usize,
    /// How it ended for the first.
    pub outcome: Outcome,
}

/// A list of games that cannot be rated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EloError {
    /// A player there is not.
    #[error("game {game} is of player {player}, expected a number below {players}, the number of players")]
    UnknownPlayer {
        /// Which game.
        game: usize,
        /// Which player.
        player: usize,
        /// How many there are.
        players: usize,
    },
    /// A game of one.
    #[error("game {game} is of player {player} against itself, expected two players")]
    OnePlayer {
        /// Which game.
        game: usize,
        /// Which player.
        player: usize,
    },
}

/// The rating system.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Elo {
    /// What a player has before its first game. 1500 by custom; only differences mean anything.
    pub start: Finite,
    /// k: the most that one game can move. 32, as in the released code.
    pub k: Positive,
}

impl Default for Elo {
    fn default() -> Self {
        Self { start: Finite::literal(1500.0), k: Positive::literal(32.0) }
    }
}

impl Elo {
    /// The ratings of two players after a game between them, the first player first. Their sum stays.
    pub fn update(&self, ratings: [f64; 2], outcome: Outcome) -> [f64; 2] {
        let [first, second] = ratings;
        let points = self.k.get() * (outcome.score() - expected_score(first, second));
        [first + points, second - points]
    }

    /// The ratings of `players` players after games in the order in which they are listed.
    ///
    /// # Errors
    /// If a game is of a player that is not there, or of one player against itself.
    pub fn ratings(&self, players: usize, games: &[Game]) -> Result<Vec<f64>, EloError> {
        check(players, games)?;
        Ok(self.rate(players, games))
    }

    /// The mean of the final ratings over so many random orders of the games.
    ///
    /// A function of the games, not of the order in which they are listed nor of which player a game lists first.
    ///
    /// # Errors
    /// If a game is of a player that is not there, or of one player against itself.
    pub fn mean_ratings(
        &self,
        players: usize,
        games: &[Game],
        orders: NonZeroUsize,
        draws: &Draws,
    ) -> Result<Vec<f64>, EloError> {
        check(players, games)?;
        let mut games: Vec<Game> = games.iter().map(Game::lower_first).collect();
        games.sort_unstable();
        let draws = draws.child(u64::from_le_bytes(*b"elo-game"));
        let mut sums = vec![0.0; players];
        for order in 0..orders.get() {
            let mut games = games.clone();
            games.shuffle(&mut draws.generator(Purpose::Evaluate, order as u64));
            for (sum, rating) in sums.iter_mut().zip(self.rate(players, &games)) {
                *sum += rating;
            }
        }
        Ok(sums.into_iter().map(|sum| sum / orders.get() as f64).collect())
    }

    fn rate(&self, players: usize, games: &[Game]) -> Vec<f64> {
        let mut ratings = vec![self.start.get(); players];
        for &Game { first, second, outcome } in games {
            [ratings[first], ratings[second]] = self.update([ratings[first], ratings[second]], outcome);
        }
        ratings
    }
}

impl Game {
    /// The same game, listed with the player of the lower number first.
    fn lower_first(&self) -> Self {
        if self.first < self.second {
            *self
        } else {
            Self { first: self.second, second: self.first, outcome: self.outcome.reversed() }
        }
    }
}

/// E_a = 1 / (1 + 10^((R_b − R_a)/400)): what a player rated `rating` is expected to score against one rated `opponent`.
pub fn expected_score(rating: f64, opponent: f64) -> f64 {
    1.0 / (1.0 + 10.0_f64.powf((opponent - rating) / 400.0))
}

fn check(players: usize, games: &[Game]) -> Result<(), EloError> {
    for (game, &Game { first, second, .. }) in games.iter().enumerate() {
        if let Some(player) = [first, second].into_iter().find(|player| *player >= players) {
            return Err(EloError::UnknownPlayer { game, player, players });
        }
        if first == second {
            return Err(EloError::OnePlayer { game, player: first });
        }
    }
    Ok(())
}
