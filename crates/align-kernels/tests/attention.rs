//! Attention, whole and from a cache, agrees with its composition.

mod common;

use align_kernels::{AttentionOptions, KeyValueCache, attention, cache_attention, plain};
use burn::Tensor;
use burn::tensor::{Bool, DType, Device, TensorData};
use common::{Within, assert_near, check, flat, host, numbers, tensor};

/// Softmax and two products: a sum over keys of products of roundings, in f32, against f64.
const WITHIN: Within = Within { value: 2e-6, gradient: 5e-6 };

#[derive(Clone, Copy)]
struct Case {
    b: usize,
    h: usize,
    g: usize,
    t: usize,
    s: usize,
    d: usize,
    dv: usize,
    options: AttentionOptions,
    padding: Padding,
    token_major: bool,
    scale: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Padding {
    None,
    Left,
    Right,
    Holes,
    All,
}

const SMALL: Case = Case {
    b: 2,
    h: 4,
    g: 4,
    t: 7,
    s: 7,
    d: 8,
    dv: 8,
    options: AttentionOptions { scale: 0.35, causal: true, softcap: None, window: None },
    padding: Padding::None,
    token_major: false,
    scale: 1.0,
};

fn mask(case: &Case) -> Option<Tensor<2, Bool>> {
    let Case { b, s, .. } = *case;
    let counts = |row: usize, column: usize| match case.padding {
        Padding::None => true,
        Padding::Left => column >= row * s / b,
        Padding::Right => column < s - row * s / (b + 1),
        Padding::Holes => !(column + row).is_multiple_of(3),
        Padding::All => row > 0,
    };
    let values: Vec<bool> = (0..b * s).map(|i| counts(i / s, i % s)).collect();
    (case.padding != Padding::None)
        .then(|| Tensor::from_data(TensorData::new(values, [b, s]), &Device::flex()))
}

fn agree(case: Case) {
    let Case { b, h, g, t, s, d, dv, .. } = case;
    let shaped = |x: &Tensor<1>, heads: usize, tokens: usize, width: usize| match case.token_major {
        true => x.clone().reshape([b, tokens, heads, width]).swap_dims(1, 2),
        false => x.clone().reshape([b, heads, tokens, width]),
    };
    let inputs = |x: &[Tensor<1>]| (shaped(&x[0], h, t, d), shaped(&x[1], g, s, d), shaped(&x[2], g, s, dv));
    let mask = mask(&case);
    check(
        &[b * h * t * d, b * g * s * d, b * g * s * dv],
        case.scale,
        WITHIN,
        &|x| {
            let (q, k, v) = inputs(x);
            flat(attention(q, k, v, mask.as_ref(), &case.options))
        },
        &|x| {
            let (q, k, v) = inputs(x);
            flat(plain::attention(q, k, v, mask.as_ref(), &case.options))
        },
    );
}

#[test]
fn attention_equals_its_composition() {
    let options = SMALL.options;
    agree(SMALL);
    agree(Case { options: AttentionOptions { causal: false, ..options }, ..SMALL });
    agree(Case { t: 3, s: 9, ..SMALL });
    agree(Case { t: 1, s: 5, ..SMALL });
    agree(Case { dv: 5, d: 3, ..SMALL });
    agree(Case { b: 1, h: 1, g: 1, t: 1, s: 1, d: 1, dv: 1, ..SMALL });
}

#[test]
fn shared_key_heads_equal_expanded_ones() {
    agree(Case { g: 2, ..SMALL });
    agree(Case { h: 6, g: 1, ..SMALL });
    agree(Case { g: 2, token_major: true, ..SMALL });
}

#[test]
fn windows_caps_and_masks_equal_their_composition() {
    let options = SMALL.options;
    for padding in [Padding::None, Padding::Left, Padding::Right, Padding::Holes, Padding::All] {
        agree(Case { padding, ..SMALL });
        agree(Case { padding, g: 2, options: AttentionOptions { causal: false, ..options }, ..SMALL });
        agree(Case {
            padding,
            t: 4,
            s: 11,
            options: AttentionOptions { window: Some(3), ..options },
            ..SMALL
        });
        agree(Case {
            padding,
            scale: 3.0,
            options: AttentionOptions { softcap: Some(2.0), ..options },
            ..SMALL
        });
    }
}

#[test]
fn many_blocks_equal_one_composition() {
    // More than two blocks of 64 queries, a remainder, heads inside tokens.
    let large = Case { b: 1, h: 2, g: 1, t: 150, s: 161, d: 16, dv: 16, token_major: true, ..SMALL };
    agree(large);
    agree(Case { padding: Padding::Holes, ..large });
    agree(Case {
        options: AttentionOptions { window: Some(40), softcap: Some(5.0), ..SMALL.options },
        ..large
    });
}

#[test]
fn large_scores_saturate_without_overflow() {
    let options = AttentionOptions { scale: 1.0, causal: true, softcap: None, window: None };
    let case = Case { options, ..SMALL };
    let Case { b, h, t, d, .. } = case;
    let device = Device::flex().autodiff();
    let input = |seed| {
        let values: Vec<f64> = numbers(b * h * t * d, seed).iter().map(|x| x * 1e6).collect();
        tensor(&values, DType::F32, &device).require_grad()
    };
    let leaves = [input(1), input(2), input(3)];
    let [q, k, v] = leaves.clone().map(|x| x.reshape([b, h, t, d]));
    let y = attention(q, k, v, None, &options);
    let values = host(flat(y.clone().inner()));
    assert!(values.iter().all(|y| y.abs() <= 1e6), "an average cannot exceed its values");
    let grads = y.sum().backward();
    assert!(leaves.iter().all(|leaf| host(leaf.grad(&grads).unwrap()).iter().all(|g| g.is_finite())));
}

#[test]
fn a_query_that_sees_nothing_gives_zeros_and_zero_gradients() {
    let case = Case { padding: Padding::All, ..SMALL };
    let Case { b, h, t, d, .. } = case;
    let device = Device::flex().autodiff();
    let leaves =
        [1, 2, 3].map(|seed| tensor(&numbers(b * h * t * d, seed), DType::F32, &device).require_grad());
    let [q, k, v] = leaves.clone().map(|x| x.reshape([b, h, t, d]));
    let y = attention(q, k, v, mask(&case).as_ref(), &case.options);
    let first = h * t * d; // row 0 is hidden, row 1 is not
    let values = host(flat(y.clone().inner()));
    assert!(values[..first].iter().all(|&y| y == 0.0) && values[first..].iter().all(|&y| y != 0.0));
    let grads = y.sum().backward();
    for leaf in &leaves {
        assert!(host(leaf.grad(&grads).unwrap())[..first].iter().all(|&g| g == 0.0));
    }
}

/// Keys and values of one row, a column at a time, and the attention it should get.
#[derive(Clone, Default)]
struct Row {
    keys: Vec<f64>,
    values: Vec<f64>,
    length: usize,
}

const HEADS: usize = 4;
const SHARED: usize = 2;
const WIDTH: usize = 8;

/// Appends `count` columns to every row and to the cache; the first `padding[r]` of them are padding of row `r`.
fn feed(cache: &mut KeyValueCache, rows: &mut [Row], padding: &[usize], count: usize, seed: u64) {
    let (b, device) = (rows.len(), Device::flex());
    let n = b * SHARED * count * WIDTH;
    let (k, v) = (numbers(n, seed), numbers(n, seed + 1000));
    let shape = [b, SHARED, count, WIDTH];
    let shaped = |values: &[f64]| tensor(values, DType::F32, &device).reshape(shape);
    cache.append(shaped(&k), shaped(&v));
    for (r, row) in rows.iter_mut().enumerate() {
        for column in padding[r]..count {
            for head in 0..SHARED {
                let at = ((r * SHARED + head) * count + column) * WIDTH;
                row.keys.extend(&k[at..at + WIDTH]);
                row.values.extend(&v[at..at + WIDTH]);
            }
            row.length += 1;
        }
    }
}

/// The cache's attention of `count` new queries against the composition for each row alone.
fn assert_rows(cache: &KeyValueCache, rows: &[Row], options: &AttentionOptions, count: usize, seed: u64) {
    let device = Device::flex();
    let queries = numbers(rows.len() * HEADS * count * WIDTH, seed);
    let q = tensor(&queries, DType::F32, &device).reshape([rows.len(), HEADS, count, WIDTH]);
    let found = cache_attention(q.clone(), cache, options);
    for (r, row) in rows.iter().enumerate() {
        let shaped = |values: &[f64]| {
            tensor(values, DType::F64, &device).reshape([1, row.length, SHARED, WIDTH]).swap_dims(1, 2)
        };
        let q = q.clone().narrow(0, r, 1).cast(DType::F64);
        let expected = plain::attention(q, shaped(&row.keys), shaped(&row.values), None, options);
        let found = found.clone().narrow(0, r, 1);
        assert_near(&format!("row {r}"), &host(flat(found)), &host(flat(expected)), WITHIN.value);
    }
}

#[test]
fn the_cache_gives_each_row_what_it_would_get_alone() {
    for options in [
        AttentionOptions::causal(WIDTH),
        AttentionOptions { window: Some(4), softcap: Some(1.5), ..AttentionOptions::causal(WIDTH) },
    ] {
        let starts = vec![0, 2, 5];
        let mut rows = vec![Row::default(); 3];
        let mut cache = KeyValueCache::new(starts.clone(), 4);
        feed(&mut cache, &mut rows, &starts, 7, 1); // grows at once, then again
        assert_rows(&cache, &rows, &options, 2, 5);
        for step in 0..5 {
            feed(&mut cache, &mut rows, &[0; 3], 1, 10 + step);
            assert_rows(&cache, &rows, &options, 1, 20 + step);
        }
        assert_eq!((cache.end(), cache.starts()), (12, &[0, 2, 5][..]));
        assert_eq!(host(flat(cache.next_positions(1, &Device::flex()).float())), [12.0, 10.0, 7.0]);
    }
}

#[test]
fn rows_leave_and_join_without_changing_the_others() {
    let options = AttentionOptions::causal(WIDTH);
    let mut rows = vec![Row::default(); 3];
    let mut cache = KeyValueCache::new(vec![0, 3, 4], 6);
    feed(&mut cache, &mut rows, &[0, 3, 4], 6, 1);
    cache.keep(&[2, 1]);
    let mut rows = vec![rows[2].clone(), rows[1].clone()];
    assert_rows(&cache, &rows, &options, 1, 2);
    assert_eq!(cache.starts(), [4, 3]);
    cache.compact();
    assert_eq!((cache.starts(), cache.end()), (&[1, 0][..], 3));
    assert_rows(&cache, &rows, &options, 1, 3);
    // A longer newcomer moves these right; a shorter one is moved itself.
    for (length, seed) in [(5, 30), (2, 40)] {
        let mut newcomers = vec![Row::default(); 1];
        let mut other = KeyValueCache::new(vec![0], 2);
        feed(&mut other, &mut newcomers, &[0], length, seed);
        cache.join(other);
        rows.append(&mut newcomers);
        assert_rows(&cache, &rows, &options, 1, seed + 1);
        let count = cache.rows();
        feed(&mut cache, &mut rows, &vec![0; count], 1, seed + 2);
        assert_rows(&cache, &rows, &options, 1, seed + 3);
    }
    assert_eq!(cache.rows(), 4);
}

#[test]
fn many_rows_and_columns_take_the_parallel_path_to_the_same_result() {
    let options = AttentionOptions::causal(WIDTH);
    let mut rows = vec![Row::default(); 8];
    let starts: Vec<usize> = (0..8).map(|r| 13 * r).collect();
    let mut cache = KeyValueCache::new(starts.clone(), 700);
    feed(&mut cache, &mut rows, &starts, 600, 1);
    assert_rows(&cache, &rows, &options, 1, 2);
}

#[test]
#[should_panic(expected = "do not fit: expected [B, H, T, D]")]
fn key_heads_that_do_not_divide_are_refused() {
    let device = Device::flex();
    let x = |heads| Tensor::<4>::zeros([1, heads, 2, 4], &device);
    attention(x(4), x(3), x(3), None, &AttentionOptions::causal(4));
}
