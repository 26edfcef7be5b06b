//! What fusion costs beyond its members' own forward passes, at a decoding step.
//!
//! Steps alternate: all members decode a token by themselves, then the fusion of them decodes the same token, so that what else
//! the machine does falls on both. Printed for each vocabulary and number of rows: time of a step of the members, and what the
//! fusion takes beyond it as a share of that: the median over steps with its quartiles, and the same of processor time, which
//! other processes disturb less. The aim is under 10 %.
//!
//! Finding the weights of a row costs what the vocabulary costs, whatever the models: with larger models the share falls. So the
//! larger vocabulary is looked at with two sizes of large base: one that is hardly more than its head, and one of 0.2 billion
//! parameters. Small base and expert have half the width and half the layers.
//!
//! `cargo bench --bench fusion_step`

use std::fs;
use std::time::Instant;

use align_core::{CausalLm, Decoder, Draws, TokenBatch};
use align_fusion::{DynamicConfig, Expert, Fusion, Search, Weighing};
use align_models::{Transformer, TransformerConfig};
use burn::tensor::Device;

const STEPS: usize = 16;
const PROMPT: usize = 16;

fn main() {
    align_kernels::tune_allocator();
    // Small operations stay on one thread of the pool.
    rayon::scope(|scope| scope.spawn(|_| run()));
}

fn run() {
    println!("{STEPS} steps each, {} threads", rayon::current_num_threads());
    for (vocabulary, hidden, layers) in [(2048, 512, 8), (32_000, 512, 8), (32_000, 1024, 12)] {
        println!("V = {vocabulary}, hidden {hidden}, {layers} layers");
        let device = Device::flex();
        let model = |seed, hidden, layers| {
            let mut config = TransformerConfig::llama(vocabulary, hidden, layers, 8);
            // Scores of some nats, as trained models have: the search is then a search.
            config.initializer_range = 0.1;
            Transformer::init(&config, &Draws::new(seed), &device)
        };
        let members =
            [model(1, hidden, layers), model(2, hidden / 2, layers / 2), model(3, hidden / 2, layers / 2)];
        let search = |search| Weighing::Dynamic(DynamicConfig { search, ..DynamicConfig::default() });
        for rows in [1, 16] {
            for (name, weighing) in [
                ("static", Weighing::Static { weights: vec![1.0] }),
                ("grid", search(Search::Grid)),
                ("refined", search(Search::Refined)),
            ] {
                compare(&members, name, weighing, vocabulary, rows);
            }
        }
    }
}

/// Wall time and processor time of all threads, in milliseconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    processor: f64,
}

fn cost(work: impl FnOnce()) -> Cost {
    let (start, before) = (Instant::now(), processor_time());
    work();
    Cost { wall: start.elapsed().as_secs_f64() * 1e3, processor: processor_time() - before }
}

/// Milliseconds that the threads of this process have run for; NaN where the system does not say.
fn processor_time() -> f64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return f64::NAN };
    let of_thread = |path: std::path::PathBuf| -> Option<f64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    threads.flatten().filter_map(|thread| of_thread(thread.path())).sum::<f64>() * 1e-6
}

fn compare(members: &[Transformer; 3], name: &str, weighing: Weighing, vocabulary: usize, rows: usize) {
    let [base, anchor, expert] = members;
    let experts = vec![Expert::new("expert", Box::new(expert) as Box<dyn CausalLm>)];
    let fusion = Fusion::new(Box::new(base), Box::new(anchor), experts, weighing).expect("they fit");
    let token = |row: usize, at: usize| ((row * 7919 + at * 104_729) % vocabulary) as u32;
    let prompts: Vec<Vec<u32>> =
        (0..rows).map(|row| (0..PROMPT).map(|at| token(row, at)).collect()).collect();
    let prompts = TokenBatch::left_padded(&prompts, &base.device());

    let mut alone: Vec<Box<dyn Decoder + '_>> = members.iter().map(|member| member.decoder()).collect();
    let mut fused = vec![fusion.decoder()];
    for decoder in alone.iter_mut().chain(&mut fused) {
        decoder.admit(&prompts);
    }
    // All decoders one after another, every score read.
    let advance = |decoders: &mut [Box<dyn Decoder + '_>], next: &[u32]| {
        cost(|| decoders.iter_mut().for_each(|decoder| drop(decoder.advance(next).into_data())))
    };
    let steps: Vec<(Cost, Cost)> = (0..STEPS)
        .map(|step| {
            let next: Vec<u32> = (0..rows).map(|row| token(row, PROMPT + step)).collect();
            (advance(&mut alone, &next), advance(&mut fused, &next))
        })
        .collect();

    let quartiles = |of: &dyn Fn(&(Cost, Cost)) -> f64| {
        let mut values: Vec<f64> = steps.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        [values[STEPS / 4], values[STEPS / 2], values[3 * STEPS / 4]]
    };
    let share = |of: fn(&Cost) -> f64| quartiles(&|(alone, fused)| (of(fused) / of(alone) - 1.0) * 100.0);
    let ([_, members, _], wall) = (quartiles(&|(alone, _)| alone.wall), share(|cost| cost.wall));
    let processor = share(|cost| cost.processor);
    println!(
        "{rows:>4} rows, {name:>7}: members {members:>6.2} ms, fusion {:>+5.1} % beyond ({:+.1} to {:+.1}), \
         processor time {:>+5.1} % ({:+.1} to {:+.1})",
        wall[1], wall[0], wall[2], processor[1], processor[0], processor[2],
    );
}
