//! Every refusal of files, tables, splits and knowledge, by its message: it names the thing, what was expected and what was
//! found.

use std::path::Path;

use align_core::number::{Finite, Fraction, Positive};
use align_factors::{
    ConsensusConfig, Constant, Design, Divergence, Encoder, EncoderConfig, Factors, FactorsError, Grid,
    ImportanceDistribution, Knowledge, Matrix, Normalization, OrdinalMetrics, PoolMember, Pooling, Rows,
    Schema, Shares, Split, Survey, SurveyConfig, Table, TableError, Train, consensus,
    generalized_jensen_shannon, geometric, pooled, read_csv, read_parquet, read_table,
};
use tempfile::TempDir;

fn schema(text: &str) -> Schema {
    toml::from_str(text).unwrap()
}

fn read(text: impl AsRef<[u8]>, of: &str) -> Result<Table, TableError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("answers.csv");
    std::fs::write(&path, text).unwrap();
    read_csv(&path, &schema(of))
}

/// The message, without the folder that the file is in.
fn refusal<T: std::fmt::Debug>(result: Result<T, TableError>) -> String {
    let message = result.unwrap_err().to_string();
    match message.find("answers.csv") {
        Some(name) => format!(
            "{}{}",
            if message.starts_with("cannot read") { "cannot read " } else { "" },
            &message[name..]
        ),
        None => message,
    }
}

#[test]
fn files_that_are_none() {
    let message = read_table(Path::new("/nowhere/answers.csv"), &Schema::default()).unwrap_err().to_string();
    assert!(message.starts_with("cannot read /nowhere/answers.csv: No such file"), "{message}");
    assert!(read_parquet(Path::new("/nowhere/answers.parquet"), &Schema::default()).is_err());
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("cut.parquet");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let message = read_table(&fixtures.join("lists.parquet"), &Schema::default()).unwrap_err().to_string();
    assert!(
        message.contains("lists.parquet, row 1, column `visits`: expected a plain value, found "),
        "{message}"
    );
    let whole = std::fs::read(fixtures.join("survey.parquet")).unwrap();
    for end in [4, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..end]).unwrap();
        let message = read_table(&path, &Schema::default()).unwrap_err().to_string();
        assert!(message.starts_with("cannot read ") && message.contains("cut.parquet"), "{end}: {message}");
    }
}

#[test]
fn files_with_nothing_in_them() {
    assert_eq!(
        refusal(read("", "")),
        "answers.csv is empty: expected a header and at least one row, found nothing"
    );
    assert_eq!(
        refusal(read("a,b\n", "")),
        "answers.csv is empty: expected a header and at least one row, found no rows"
    );
    assert_eq!(
        refusal(read("a,y\n1,\n", "label = \"y\"\nmissing_label = \"drop\"")),
        "answers.csv is empty: expected a header and at least one row, found no row with a label"
    );
}

#[test]
fn files_that_were_cut_off() {
    assert_eq!(
        refusal(read("a,b,c\n1,2,3\n4,5", "")),
        "answers.csv, line 3: expected 3 fields as in the header, found 2; it is the last row, and the file may \
         have been cut off"
    );
    assert_eq!(
        refusal(read("a,b\n1,x\n2,\"a long ans", "")),
        "answers.csv, line 3: a quoted field is never closed; the file may have been cut off"
    );
    // A doubled quote is none that closes.
    assert!(
        refusal(read("a,b\n1,x\n2,\"he said \"\"no", "")).contains("line 3: a quoted field is never closed")
    );
    assert!(read("a,b\n1,x\n2,\"he said \"\"no\"\"\"", "").is_ok());
    assert!(read("a,b\n1,x\n2,5\" pipe", "").is_ok());
}

#[test]
fn rows_of_another_width_and_headers_that_name_nothing() {
    assert_eq!(
        refusal(read("a,b\n1,2\n\n\"x\ny\",2,3\n4,5\n", "")),
        "answers.csv, line 4: expected 2 fields as in the header, found 3"
    );
    assert_eq!(
        refusal(read("a,b\r\n1,2\r\n3\r\n4,5\r\n", "")),
        "answers.csv, line 3: expected 2 fields as in the header, found 1"
    );
    assert_eq!(refusal(read("a,b, a\n1,2,3\n", "")), "answers.csv has two columns `a`");
    assert_eq!(refusal(read("a,,b\n1,2,3\n", "")), "answers.csv: column 2 has no name");
}

#[test]
fn text_in_another_encoding() {
    assert_eq!(
        refusal(read(b"a,b\n1,x\n2,\xd0\xd2\xb8\xa3\n", "")),
        "answers.csv, line 3: expected text in UTF-8, found other bytes; convert the file (from GBK, Latin-1 or \
         what it is in) first"
    );
}

#[test]
fn schemas_for_another_file() {
    assert_eq!(
        refusal(read("a,b\n1,2\n", "columns.c = { kind = \"numeric\" }")),
        "answers.csv has no column `c`, which the schema names; it has `a`, `b`"
    );
    assert_eq!(
        refusal(read("a,b\n1,2\n", "label = \"y\"")),
        "answers.csv has no column `y`, which the schema names; it has `a`, `b`"
    );
    assert!(refusal(read("a,b\n1,2\n", "ignore = [\"id\"]")).contains("no column `id`"));
    assert_eq!(
        refusal(read("a,b\n1,2\n", "others = \"refuse\"\ncolumns.a = { kind = \"numeric\" }")),
        "answers.csv: the schema does not name column `b`"
    );
}

#[test]
fn schemas_that_are_none() {
    let refused = |text: &str| toml::from_str::<Schema>(text).unwrap_err().to_string();
    assert!(
        refused("columns.a = { kind = \"ordinal\", levels = \"5..1\" }")
            .contains("expected levels such as \"1..5\", at most 1000, found \"5..1\"")
    );
    assert!(
        refused("columns.a = { kind = \"ordinal\", levels = \"0..1000000000000\" }").contains("at most 1000")
    );
    assert!(
        refused("columns.a = { kind = \"ordinal\", levels = [1, 3, 2] }")
            .contains("in rising order, found [1, 3, 2]")
    );
    assert!(refused("columns.a = { kind = \"ordinal\", levels = [\"no\", \"no\"] }").contains("each once"));
    assert!(refused("columns.a = { kind = \"ordinal\" }").contains("missing field `levels`"));
    assert!(refused("columns.a = { kind = \"cardinal\" }").contains("unknown variant `cardinal`"));
    assert!(
        refused("columns.a = { kind = \"numeric\", levels = \"1..5\" }").contains("unknown field `levels`")
    );
    assert!(refused("delimiter = \"x\"").contains("unknown variant `x`"));
    assert!(refused("labels = \"y\"").contains("unknown field `labels`"));
}

#[test]
fn cells_that_their_column_cannot_hold() {
    let of = "columns.a = { kind = \"ordinal\", levels = \"1..5\", missing = [98] }";
    for found in ["-8", "6", "2.5", "often"] {
        assert_eq!(
            refusal(read(format!("a,b\n3,1\n98,2\n{found},3\n"), of)),
            format!(
                "answers.csv, line 4, column `a`: expected a level (1..5) or a declared code for a missing \
                 answer, found `{found}`"
            )
        );
    }
    for found in ["12,5", "inf", "nan", "much", "1_000"] {
        assert_eq!(
            refusal(read(format!("a\n3\n\"{found}\"\n"), "columns.a = { kind = \"numeric\" }")),
            format!("answers.csv, line 3, column `a`: expected a finite number, found `{found}`")
        );
    }
    assert_eq!(
        refusal(read(
            "a\nnorth\nwest\n",
            "columns.a = { kind = \"nominal\", categories = [\"north\", \"south\"] }"
        )),
        "answers.csv, line 3, column `a`: expected one of `north`, `south`, found `west`"
    );
}

#[test]
fn undeclared_scales_with_codes_for_missing_answers() {
    for (cells, code, line) in [("1\n5\n-8\n3", "-8", 4), ("0\n98\n10", "98", 3), ("30000\n-2\n12", "-2", 3)]
    {
        assert_eq!(
            refusal(read(format!("a\n{cells}\n"), "")),
            format!(
                "answers.csv, line {line}, column `a`: `{code}` among answers looks like a code for a missing \
                 one; declare it in `missing`, or declare the column's kind if it is an answer"
            )
        );
    }
    // Declared, either way, they are read; and 98 among ages is an age.
    assert!(read("a\n1\n5\n-8\n", "missing = [-8]").is_ok());
    assert!(read("a\n1\n5\n-8\n", "columns.a = { kind = \"numeric\" }").is_ok());
    assert!(read("a\n31\n98\n45\n", "").is_ok());
    assert!(read("a\n1.5\n-8\n45\n", "").is_ok());
}

#[test]
fn undeclared_essays() {
    let cells: String = (0..101).map(|person| format!("name {person}\n")).collect();
    assert_eq!(
        refusal(read(format!("a\n{cells}"), "")),
        "answers.csv: column `a` has 101 different texts, more than 100; declare it nominal, or ignore it"
    );
    assert!(read(format!("a\n{cells}"), "columns.a = { kind = \"nominal\" }").is_ok());
}

#[test]
fn labels_that_are_missing_or_no_numbers() {
    assert_eq!(
        refusal(read("a,y\n1,2\n3,NA\n", "label = \"y\"")),
        "answers.csv, line 3: the label `y` is missing; set `missing_label = \"drop\"` to leave such rows out"
    );
    assert_eq!(
        refusal(read("a,y\n1,good\n3,bad\n", "label = \"y\"")),
        "answers.csv: the label `y` must be numeric or ordinal on consecutive whole numbers, found categories"
    );
    assert_eq!(
        refusal(read(
            "a,y\n1,1\n3,4\n",
            "label = \"y\"\ncolumns.y = { kind = \"ordinal\", levels = [1, 2, 4] }"
        )),
        "answers.csv: the label `y` must be numeric or ordinal on consecutive whole numbers, found levels \
         1, 2, 4"
    );
}

#[test]
fn tables_that_nothing_can_be_learnt_from() {
    let fit = |table: &Table, config: EncoderConfig| Encoder::fit(table, &Rows::all(table), &config);
    let table = read("a,b,y\n1.5,x,1\n2.5,x,2\n", "label = \"y\"").unwrap();
    let refuse = EncoderConfig { constant: Constant::Refuse, ..Default::default() };
    assert_eq!(
        refusal(fit(&table, refuse)),
        "column `b` is constant in the training rows (x); drop it, or set `constant = \"drop\"`"
    );
    let empty = read("a\nNA\nNA\n", "").unwrap();
    assert!(
        refusal(fit(&empty, refuse)).contains("column `a` is constant in the training rows (nobody answers)")
    );
    assert_eq!(
        refusal(fit(&empty, EncoderConfig::default())),
        "no column varies in the training rows: there is nothing to learn from"
    );
    let constant = read("a\n0.1\n0.1\n0.1\n", "").unwrap();
    assert!(refusal(fit(&constant, refuse)).contains("constant in the training rows (0.1)"));
    let encoder = fit(&table, EncoderConfig::default()).unwrap();
    let unlabelled = read("a\n1.5\n2.5\n", "").unwrap();
    assert_eq!(
        refusal(encoder.encode(&unlabelled, &Rows::<Train>::all(&unlabelled))),
        "the table has no label: name one in the schema (`label = \"...\"`)"
    );
    let all = Split::random(2, Shares::new(1.0, 0.0, 0.0).unwrap(), 1).unwrap();
    assert_eq!(refusal(encoder.encode(&table, &all.test)), "there are no test rows to encode");
}

#[test]
fn tables_that_an_encoder_does_not_know() {
    let table = read("a,b\n1.5,x\n2.5,y\n3.5,z\n", "").unwrap();
    let encoder = Encoder::fit(&table, &Rows::all(&table), &EncoderConfig::default()).unwrap();
    let rows = |text: &str, of: &str| refusal(encoder.rows(&read(text, of).unwrap(), &[0, 1]));
    assert_eq!(
        rows("a,b\n1.5,x\n2.5,new\n", ""),
        "row 1, column `b`: category `new` does not occur in the training rows; known are `x`, `y`, `z`"
    );
    assert_eq!(
        rows("b,c\nx,1\ny,2\n", ""),
        "column `a`: the encoder expects it to be numeric, found no such column"
    );
    assert_eq!(
        rows("a,b\n1,x\n2,y\n", ""),
        "column `a`: the encoder expects it to be numeric, found ordinal"
    );
    assert_eq!(
        rows("a,b\n1.5,1\n2.5,2\n", ""),
        "column `b`: the encoder expects it to be nominal, found ordinal"
    );
}

#[test]
fn splits_that_are_none() {
    for [train, validation, test] in
        [[0.5, 0.2, 0.2], [0.0, 0.5, 0.5], [1.2, -0.2, 0.0], [f64::NAN, 0.5, 0.5]]
    {
        assert_eq!(
            Shares::new(train, validation, test).unwrap_err().to_string(),
            format!(
                "shares must be non-negative, with some for training, and sum to 1; found train \
                 {train}, validation {validation}, test {test}"
            )
        );
    }
    assert!(toml::from_str::<Shares>("train = 0.5\nvalidation = 0.5\ntest = 0.5").is_err());
    let shares = Shares::new(0.9, 0.05, 0.05).unwrap();
    assert_eq!(
        Split::random(3, shares, 1).unwrap_err().to_string(),
        "the validation part would be empty: a share of 0.05 of 3 rows is less than one row"
    );
    assert!(Split::random(0, Shares::default(), 1).is_err());
}

#[test]
fn knowledge_that_is_no_distribution() {
    let new = |masses: &[f64]| ImportanceDistribution::new(masses.to_vec()).unwrap_err().to_string();
    let message =
        |sum: &str| format!("InvalidDistribution: knowledge must be non-negative and sum to 1 (sum {sum})");
    assert_eq!(new(&[0.5, 0.25]), message("0.75"));
    assert_eq!(new(&[1.5, -0.5]), message("1"));
    assert_eq!(new(&[f64::NAN, 0.5]), message("NaN"));
    assert_eq!(new(&[0.5, 0.5625]), message("1.0625"));
    assert!(ImportanceDistribution::new(vec![0.5, 0.500_001_1]).is_err());
    assert!(ImportanceDistribution::new(vec![0.5, 0.500_000_9]).is_ok());
    let single = "NothingToCompare: importance distribution needs at least 2 factors";
    assert_eq!(new(&[1.0]), single);
    assert_eq!(new(&[]), single);
    assert_eq!(ImportanceDistribution::uniform(1).unwrap_err().to_string(), single);
    assert_eq!(geometric(Fraction::literal(0.5), 1).unwrap_err().to_string(), single);
}

#[test]
fn importances_that_say_nothing() {
    for normalization in [Normalization::Ratio, Normalization::Softmax { tau: Positive::literal(1.0) }] {
        assert_eq!(
            ImportanceDistribution::of(&[1e-13, 0.0], normalization).unwrap_err().to_string(),
            "DegenerateExplanation: model output does not depend on any factor on the probe set"
        );
    }
    assert!(ImportanceDistribution::of(&[1e-11, 0.0], Normalization::Ratio).is_ok());
    for broken in [[1.0, f64::NAN], [1.0, f64::INFINITY], [1.0, -0.1]] {
        let error = ImportanceDistribution::of(&broken, Normalization::Ratio).unwrap_err();
        assert!(matches!(error, FactorsError::InvalidDistribution { .. }), "{error}");
    }
    let q = ImportanceDistribution::uniform(2).unwrap();
    let error = Divergence::Forward.gradient(&q, &[0.0, 0.0], Normalization::Ratio).unwrap_err();
    assert_eq!(error, FactorsError::DegenerateExplanation);
}

#[test]
fn knowledge_of_other_factors() {
    let factors = Factors::columns(["age", "health"]).unwrap();
    let refused = |text: &str| {
        toml::from_str::<Knowledge>(text).unwrap().distribution(&factors).unwrap_err().to_string()
    };
    assert_eq!(
        refused("kind = \"masses\"\nmasses = { age = 0.5, helth = 0.5 }"),
        "UnknownFactor: knowledge names `helth`; the factors are `age`, `health`"
    );
    assert_eq!(
        refused("kind = \"masses\"\nmasses = { age = 0.5, health = 0.4 }"),
        "InvalidDistribution: knowledge must be non-negative and sum to 1 (sum 0.9)"
    );
    assert_eq!(
        refused("kind = \"groups\"\ngroups = [{ mass = 0.5, factors = [\"age\", \"health\"] }]"),
        "InvalidDistribution: knowledge must be non-negative and sum to 1 (sum 0.5)"
    );
    assert_eq!(
        refused(
            r#"kind = "groups"
            groups = [{ mass = 0.75, factors = ["age"] }, { mass = 0.75, factors = ["health"] }]"#
        ),
        "InvalidDistribution: knowledge must be non-negative and sum to 1 (sum 1.5)"
    );
    assert_eq!(
        refused(
            r#"kind = "groups"
            groups = [{ mass = 0.5, factors = ["age"] }, { mass = 0.5, factors = ["age"] }]"#
        ),
        "InvalidGroups: knowledge names factor `age` twice"
    );
    assert_eq!(
        refused(
            "kind = \"groups\"\ngroups = [{ mass = 0.5, factors = [\"age\"] }, { mass = 0.5, factors = [] }]"
        ),
        "InvalidGroups: group 2 of the knowledge has no factor"
    );
    assert_eq!(
        refused("kind = \"geometric\"\nratio = 0.5\nranking = [\"age\"]"),
        "ShapeMismatch: 1 knowledge entries for 2 factors"
    );
    let single = Factors::columns(["age"]).unwrap();
    let knowledge: Knowledge = toml::from_str("kind = \"masses\"\nmasses = { age = 1.0 }").unwrap();
    assert_eq!(knowledge.distribution(&single), Err(FactorsError::NothingToCompare));
    let unread = |text: &str| toml::from_str::<Knowledge>(text).unwrap_err().to_string();
    assert!(
        unread("kind = \"masses\"\nmasses = { age = -0.5 }")
            .contains("expected a finite number >= 0, found -0.5")
    );
    assert!(
        unread("kind = \"geometric\"\nratio = 1.5\nranking = []")
            .contains("expected a number in (0, 1], found 1.5")
    );
    assert!(unread("kind = \"oracle\"").contains("unknown variant `oracle`"));
}

#[test]
fn pools_without_a_model_that_counts() {
    let config = ConsensusConfig::default();
    assert_eq!(
        consensus(&[], &config).unwrap_err().to_string(),
        "EmptyPool: no model within 0.05 of best validation loss NaN"
    );
    let factors = Factors::columns(["a", "b"]).unwrap();
    let probe = Design::<Train>::new(Matrix::new(vec![0.0, 1.0], 2), factors, vec![1.0]);
    let member = |loss: f64, importances: Vec<f64>| {
        PoolMember::new("ridge", &probe, Normalization::Ratio, loss, |_, _| Ok(importances))
    };
    let broken = member(f64::NAN, vec![1.0, 2.0]).unwrap();
    assert!(matches!(consensus(&[broken], &config), Err(FactorsError::EmptyPool { .. })));
    assert_eq!(member(1.0, vec![1.0]), Err(FactorsError::ShapeMismatch { expected: 2, found: 1 }));
    assert_eq!(member(1.0, vec![0.0, 0.0]), Err(FactorsError::DegenerateExplanation));
    let uniform = ImportanceDistribution::uniform(2).unwrap();
    for weights in [[0.5, 0.4], [1.5, -0.5]] {
        let models = [uniform.clone(), uniform.clone()];
        assert!(matches!(
            pooled(&models, &weights, Pooling::Arithmetic),
            Err(FactorsError::InvalidDistribution { .. })
        ));
        assert!(generalized_jensen_shannon(&models, &weights).is_err());
    }
}

#[test]
fn labels_off_the_grid() {
    let grid = Grid::new(1, 5);
    for (labels, message) in [
        ([1.0, 6.0], "InvalidLabel: 6 not in 1..5 at row 1"),
        ([2.5, 1.0], "InvalidLabel: 2.5 not in 1..5 at row 0"),
        ([1.0, f64::NAN], "InvalidLabel: NaN not in 1..5 at row 1"),
    ] {
        assert_eq!(grid.check(&labels).unwrap_err().to_string(), message);
        assert_eq!(OrdinalMetrics::of(grid, &labels, &[1.0, 1.0]).unwrap_err().to_string(), message);
    }
    assert!(serde_json::from_str::<Grid>("{\"low\": 5, \"high\": 1}").is_err());
}

#[test]
fn surveys_that_ask_nothing() {
    let refused = |change: fn(&mut SurveyConfig)| {
        let mut config = SurveyConfig::default();
        change(&mut config);
        Survey::new(config).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|config| config.primary.truncate(2)),
        "InvalidCount: primary factors of a survey with an interaction must be at least 3, got 2"
    );
    assert_eq!(
        refused(|config| config.thresholds.clear()),
        "InvalidCount: thresholds must be at least 1, got 0"
    );
    assert_eq!(
        refused(|config| config.thresholds.reverse()),
        "InvalidThresholds: expected each threshold above the one before, got [1.2, 0.4, -0.4, -1.2]"
    );
    assert_eq!(
        refused(|config| {
            (config.primary, config.secondary) = (vec![Finite::literal(1.0)], vec![]);
            (config.nuisance, config.interaction) = (0, Finite::literal(0.0));
        }),
        "NothingToCompare: importance distribution needs at least 2 factors"
    );
    assert_eq!(
        refused(|config| {
            (config.primary, config.secondary) = (vec![Finite::literal(0.0)], vec![]);
            config.interaction = Finite::literal(0.0);
        }),
        "DegenerateExplanation: model output does not depend on any factor on the probe set"
    );
    assert!(toml::from_str::<SurveyConfig>("correlation = 1.5").is_err());
    assert!(toml::from_str::<SurveyConfig>("noise = -1.0").is_err());
}
