use super::*;

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn sizes_are_numbers_with_a_unit_behind_them() {
    assert_eq!(size("5GB"), Ok(5_000_000_000));
    assert_eq!(size("250 mb"), Ok(250_000_000));
    assert_eq!(size("4096"), Ok(4096));
    for refused in ["", "GB", "5TB", "-1GB", "1.5GB", "0"] {
        assert!(size(refused).is_err(), "{refused:?}");
    }
}
