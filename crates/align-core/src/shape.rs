//! Shape checks at the door of a function.

/// Panics unless all shapes are the same, naming the function and every shape.
///
/// # Panics
/// If two shapes differ: a wrong shape is a bug of the caller.
#[track_caller]
pub fn assert_same_shape<const D: usize>(function: &str, shapes: impl IntoIterator<Item = [usize; D]>) {
    let shapes: Vec<[usize; D]> = shapes.into_iter().collect();
    assert!(
        shapes.windows(2).all(|pair| pair[0] == pair[1]),
        "{function}: expected equal shapes, found {shapes:?}"
    );
}
