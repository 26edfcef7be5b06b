//! Files to tables, tables to rows of numbers, and which rows are for what.

use std::path::{Path, PathBuf};

use align_factors::{
    Answer, Constant, Encoder, EncoderConfig, Levels, MissingCode, OrdinalCode, Rows, Schema, Shares, Split,
    Table, Test, Train, Unseen, Values, read_csv, read_parquet, read_table,
};
use align_testkit::assert_all_close;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn schema(text: &str) -> Schema {
    toml::from_str(text).unwrap()
}

/// A table from the text of a file.
fn table(text: &str, of: &str) -> Table {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("answers.csv");
    std::fs::write(&path, text).unwrap();
    read_csv(&path, &schema(of)).unwrap()
}

fn values<'a>(table: &'a Table, name: &str) -> &'a Values {
    &table.column(name).unwrap().values
}

const PANDAS: &str = r#"
    label = "happiness"
    ignore = ["married"]
    [columns]
    health = { kind = "ordinal", levels = "1..5", missing = [-8] }
    income = { kind = "numeric" }
    region = { kind = "nominal" }
    happiness = { kind = "ordinal", levels = "1..5" }
"#;

#[test]
fn csv_and_parquet_by_pandas_give_the_same_table() {
    let from_csv = read_csv(&fixture("survey.csv"), &schema(PANDAS)).unwrap();
    let from_parquet = read_parquet(&fixture("survey.parquet"), &schema(PANDAS)).unwrap();
    assert_eq!(from_csv, from_parquet);
    let health = [Some(4.0), None, Some(1.0), Some(5.0), None, Some(3.0)].to_vec();
    assert_eq!(
        values(&from_csv, "health"),
        &Values::Ordinal { levels: Levels::range(1, 5), answers: health }
    );
    let income = [Some(1250.5), Some(0.1), None, Some(1e-7), Some(12_345_678.0), Some(-3.25)].to_vec();
    assert_eq!(values(&from_csv, "income"), &Values::Numeric(income));
    let Values::Nominal { categories, choices } = values(&from_csv, "region") else { panic!("nominal") };
    assert_eq!(categories, &["north", "south, coast", "öst"]);
    assert_eq!(choices, &[Some(0), Some(1), Some(0), None, Some(2), Some(0)]);
    assert_eq!(from_csv.label().unwrap().values, [5.0, 2.0, 3.0, 4.0, 1.0, 3.0]);
    // Either is recognised by how it begins.
    assert_eq!(read_table(&fixture("survey.csv"), &schema(PANDAS)).unwrap(), from_csv);
    assert_eq!(read_table(&fixture("survey.parquet"), &schema(PANDAS)).unwrap(), from_csv);
}

#[test]
fn truth_values_are_categories() {
    let plain = schema("others = \"ignore\"\ncolumns.married = { kind = \"nominal\" }");
    let table = read_parquet(&fixture("survey.parquet"), &plain).unwrap();
    let Values::Nominal { categories, .. } = values(&table, "married") else { panic!("nominal") };
    assert_eq!(categories, &["false", "true"]);
}

#[test]
fn marks_spaces_quotes_blank_lines_and_other_delimiters_are_read_through() {
    let text = "\u{feff}name; health ;\"a \"\"b\"\"\"\r\n\"x; y\n z\";  3;1.5\r\n\r\nw ;4;2.5\r\n";
    let table = table(text, "delimiter = \";\"");
    let names: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["name", "health", "a \"b\""]);
    let Values::Nominal { categories, .. } = values(&table, "name") else { panic!("nominal") };
    assert_eq!(categories, &["w", "x; y\n z"]);
    assert_eq!(values(&table, "a \"b\""), &Values::Numeric(vec![Some(1.5), Some(2.5)]));
    for (delimiter, text) in
        [("\\t", "a\tb\n1\t2\n3\t4\n"), ("|", "a|b\n1|2\n3|4\n"), (",", "a,b\n1,2\n3,4\n")]
    {
        let table = self::table(text, &format!("delimiter = \"{delimiter}\""));
        assert_eq!(table.columns().len(), 2, "{delimiter}");
    }
}

#[test]
fn undeclared_columns_are_what_they_look_like() {
    let text = "scale,count,share,word,code,never\n1,120,0.5,yes,7a,\n3,7,-2,no,7,NA\n,15,1e3,yes,8,\n";
    let table = table(text, "");
    let levels = Levels::range(1, 3);
    assert_eq!(
        values(&table, "scale"),
        &Values::Ordinal { levels, answers: vec![Some(1.0), Some(3.0), None] }
    );
    assert_eq!(values(&table, "count"), &Values::Numeric(vec![Some(120.0), Some(7.0), Some(15.0)]));
    assert_eq!(values(&table, "share"), &Values::Numeric(vec![Some(0.5), Some(-2.0), Some(1000.0)]));
    assert_eq!((values(&table, "word").kind(), values(&table, "code").kind()), ("nominal", "nominal"));
    assert_eq!(values(&table, "never").missing(), 3);
    assert_eq!((table.len(), table.label()), (3, None));
}

#[test]
fn codes_mean_missing_however_they_are_written() {
    let of = r#"
        missing = [-8, "refused"]
        columns.a = { kind = "numeric", missing = [999] }
        columns.b = { kind = "ordinal", levels = ["low", "middle", "high"] }
        columns.c = { kind = "ordinal", levels = [1, 2, 5], missing = [9] }
        columns.d = { kind = "nominal", categories = ["2", "1"], missing = ["-"] }
    "#;
    let table = table("a,b,c,d\n-8,low,5,1\n-8.0,high,9.0,-\n999,refused,2.0,2\n-7,,1,-8\n", of);
    assert_eq!(values(&table, "a"), &Values::Numeric(vec![None, None, None, Some(-7.0)]));
    let Values::Ordinal { answers, .. } = values(&table, "b") else { panic!("ordinal") };
    assert_eq!(answers, &[Some(1.0), Some(3.0), None, None]);
    let Values::Ordinal { answers, .. } = values(&table, "c") else { panic!("ordinal") };
    assert_eq!(answers, &[Some(5.0), None, Some(2.0), Some(1.0)]);
    let Values::Nominal { categories, choices } = values(&table, "d") else { panic!("nominal") };
    assert_eq!(
        (categories.as_slice(), choices.as_slice()),
        (&["2".to_owned(), "1".to_owned()][..], &[Some(1), None, Some(0), None][..])
    );
}

#[test]
fn rows_without_a_label_are_left_out_where_that_is_asked_for() {
    let of = r#"
        label = "y"
        missing_label = "drop"
        missing = [-8]
        columns.y = { kind = "ordinal", levels = "1..5" }
    "#;
    let table = table("x,y\n1.5,5\n2.5,-8\n3.5,\n4.5,1\n", of);
    assert_eq!((table.len(), table.dropped()), (2, 2));
    assert_eq!(values(&table, "x"), &Values::Numeric(vec![Some(1.5), Some(4.5)]));
    assert_eq!(table.label().unwrap().values, [5.0, 1.0]);
}

#[test]
fn schemas_survive_toml_with_all_their_settings() {
    let text = r#"
        label = "y"
        missing_label = "drop"
        delimiter = "\t"
        missing = [-1, "NA", 98.5]
        ignore = ["id"]
        others = "refuse"
        [columns]
        a = { kind = "ordinal", levels = "0..10" }
        b = { kind = "ordinal", levels = [1, 2, 4], missing = [9] }
        c = { kind = "ordinal", levels = ["no", "yes"] }
        d = { kind = "nominal", categories = ["x", "y"] }
        y = { kind = "numeric" }
    "#;
    let read = schema(text);
    assert_eq!(schema(&toml::to_string(&read).unwrap()), read);
    assert_eq!(schema(&toml::to_string(&Schema::default()).unwrap()), Schema::default());
}

const PEOPLE: &str = "age,health,region,y\n20,1,north,1\n40,,south,2\n,3,north,3\n30,5,west,4\n60,3,,5\n";

fn people() -> Table {
    table(PEOPLE, "label = \"y\"\ncolumns.health = { kind = \"ordinal\", levels = \"1..5\" }")
}

fn fitted(table: &Table, config: EncoderConfig) -> Encoder {
    Encoder::fit(table, &Rows::all(table), &config).unwrap()
}

#[test]
fn numbers_are_standardised_on_the_rows_they_are_fitted_on() {
    let table = people();
    let encoder = fitted(&table, EncoderConfig { missing: MissingCode::Mean, ..Default::default() });
    let rows = encoder.rows(&table, &[0, 1, 2, 3, 4]).unwrap();
    assert_eq!(
        encoder.column_names(),
        ["age", "health", "region = north", "region = south", "region = west"]
    );
    // Ages 20, 40, 30, 60: mean 37.5, deviation √218.75; a missing one says nothing.
    let deviation = 218.75_f64.sqrt();
    let expected = [-17.5, 2.5, 0.0, -7.5, 22.5].map(|difference| difference / deviation);
    assert_all_close(rows.column(0).collect::<Vec<_>>(), expected.to_vec(), 0.0, 1e-14);
    // A missing category is what the four answers are on average.
    assert_eq!(rows.row(4)[2..], [0.5, 0.25, 0.25]);
    assert_eq!(rows.row(0)[2..], [1.0, 0.0, 0.0]);
}

#[test]
fn a_missing_answer_is_a_column_of_its_questions_factor() {
    let table = people();
    let encoder = fitted(&table, EncoderConfig::default());
    let names = encoder.column_names();
    assert_eq!(names[..4], ["age", "age (missing)", "health", "health (missing)"]);
    assert_eq!(names[4..], ["region = north", "region = south", "region = west", "region (missing)"]);
    let factors = encoder.factors();
    assert_eq!(factors.names().collect::<Vec<_>>(), ["age", "health", "region"]);
    assert_eq!((factors.columns_of(0), factors.columns_of(2)), (&[0, 1][..], &[4, 5, 6, 7][..]));
    let rows = encoder.rows(&table, &[2, 4]).unwrap();
    assert_eq!(rows.row(0)[..2], [0.0, 1.0]);
    assert_eq!(rows.row(1)[4..], [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn levels_are_categories_where_their_steps_are_not_alike() {
    let table = people();
    let encoder = fitted(&table, EncoderConfig { ordinal: OrdinalCode::OneHot, ..Default::default() });
    let names = encoder.column_names();
    assert_eq!(names[2..6], ["health = 1", "health = 3", "health = 5", "health (missing)"]);
    let rows = encoder.rows(&table, &[3, 1]).unwrap();
    assert_eq!(rows.row(0)[2..6], [0.0, 0.0, 1.0, 0.0]);
    assert_eq!(rows.row(1)[2..6], [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn rare_and_unseen_categories_share_a_column() {
    let table = people();
    let config = EncoderConfig {
        unseen: Unseen::Bucket { rare: 2 },
        missing: MissingCode::Mean,
        ..Default::default()
    };
    let encoder = fitted(&table, config);
    assert_eq!(encoder.column_names()[2..], ["region = north", "region (other)"]);
    let others = self::table("age,health,region\n1.5,1,south\n2.5,2,east\n3.5,2,north\n", "");
    let rows = encoder.rows(&others, &[0, 1, 2]).unwrap();
    assert_eq!(rows.column(2).collect::<Vec<_>>(), [0.0, 0.0, 1.0]);
    assert_eq!(rows.column(3).collect::<Vec<_>>(), [1.0, 1.0, 0.0]);
    assert_eq!(encoder.decode(rows.row(1))[2], Answer::Other);
    // Without a rare category there is nothing that a model could have learnt of others: they are the mean.
    let common = EncoderConfig {
        unseen: Unseen::Bucket { rare: 1 },
        missing: MissingCode::Mean,
        ..Default::default()
    };
    let rows = fitted(&table, common).rows(&others, &[1]).unwrap();
    assert_eq!(rows.row(0)[2..], [0.5, 0.25, 0.25]);
}

#[test]
fn a_constant_column_is_left_out_and_named() {
    let table = table("a,b,c,y\n1.5,x,1.5,1\n2.5,x,,2\n3.5,x,1.5,3\n", "label = \"y\"");
    let encoder = fitted(&table, EncoderConfig { missing: MissingCode::Mean, ..Default::default() });
    assert_eq!(encoder.constant(), ["b", "c"]);
    assert_eq!(encoder.factors().names().collect::<Vec<_>>(), ["a"]);
    // With an indicator, c says who answers.
    let encoder = fitted(&table, EncoderConfig::default());
    assert_eq!(encoder.constant(), ["b"]);
    let rows = encoder.rows(&table, &[0, 1]).unwrap();
    assert_eq!((&rows.row(0)[1..], &rows.row(1)[1..]), (&[0.0, 0.0][..], &[0.0, 1.0][..]));
    assert_eq!(encoder.decode(rows.row(0))[1], Answer::Number(1.5));
}

#[test]
fn what_is_encoded_depends_on_training_rows_only() {
    let table = people();
    let split = Split::random(5, Shares::new(0.6, 0.0, 0.4).unwrap(), 3).unwrap();
    let config = EncoderConfig { unseen: Unseen::Bucket { rare: 1 }, ..Default::default() };
    let encoder = Encoder::fit(&table, &split.train, &config).unwrap();
    let design = encoder.encode(&table, &split.train).unwrap();
    for (factor, name) in design.factors.names().enumerate() {
        let column = design.factors.columns_of(factor)[0];
        if name != "region" {
            let present: Vec<f64> = design.rows.column(column).collect();
            assert!(present.iter().sum::<f64>().abs() < 1e-12, "{name}: {present:?}");
        }
    }
    let test = encoder.encode(&table, &split.test).unwrap();
    let labels = &table.label().unwrap().values;
    let expected: Vec<f64> = split.test.positions().iter().map(|&row| labels[row]).collect();
    assert_eq!(test.labels, expected);
    let shuffled = encoder.rows(&table, &[split.test.positions()[1], split.test.positions()[0]]).unwrap();
    assert_eq!(shuffled.row(0), test.rows.row(1));
}

#[test]
fn an_encoder_survives_its_file_and_a_damaged_one_is_refused() {
    let table = people();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("encoder.json");
    for unseen in [Unseen::Refuse {}, Unseen::Bucket { rare: 2 }] {
        let encoder = fitted(&table, EncoderConfig { unseen, ..Default::default() });
        encoder.save(&path).unwrap();
        assert_eq!(Encoder::load(&path).unwrap(), encoder);
    }
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, problem) in [
        ("\"age\"", "\"region\"", "stands there twice"),
        ("\"deviation\": ", "\"deviation\": -", "expected a finite number > 0"),
        ("\"rare\": [", "\"rare\": [], \"categories\": [", "duplicate field"),
        ("\"north\"", "\"north\", \"nord\"", "expected 3 shares"),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = Encoder::load(&path).unwrap_err().to_string();
        assert!(error.contains("encoder.json is damaged") && error.contains(problem), "{error}");
    }
}

#[test]
fn settings_survive_toml() {
    let config = EncoderConfig {
        ordinal: OrdinalCode::OneHot,
        missing: MissingCode::Mean,
        unseen: Unseen::Bucket { rare: 5 },
        constant: Constant::Refuse,
    };
    assert_eq!(toml::from_str::<EncoderConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    assert!(toml::from_str::<EncoderConfig>("unseen = { kind = \"refuse\", rare = 2 }").is_err());
    let shares = Shares::new(0.5, 0.25, 0.25).unwrap();
    assert_eq!(toml::from_str::<Shares>(&toml::to_string(&shares).unwrap()).unwrap(), shares);
}

#[test]
fn a_table_can_be_a_part_by_itself() {
    let table = people();
    assert_eq!(Rows::<Test>::all(&table).positions(), [0, 1, 2, 3, 4]);
    assert_eq!(Rows::<Train>::all(&table).len(), 5);
}

fn shares() -> impl Strategy<Value = Shares> {
    (1..20u32, 1..20u32, 1..20u32).prop_map(|(train, validation, test)| {
        let sum = f64::from(train + validation + test);
        Shares::new(f64::from(train) / sum, f64::from(validation) / sum, f64::from(test) / sum).unwrap()
    })
}

/// Sizes of the parts, after a check that they are disjoint and complete.
fn sizes(split: &Split, rows: usize) -> Result<[usize; 3], TestCaseError> {
    let parts = [split.train.positions(), split.validation.positions(), split.test.positions()];
    let mut all = parts.concat();
    all.sort_unstable();
    prop_assert_eq!(all, (0..rows).collect::<Vec<_>>());
    prop_assert!(parts.iter().all(|part| part.is_sorted()));
    Ok(parts.map(<[usize]>::len))
}

proptest! {
    #[test]
    fn parts_are_disjoint_complete_and_of_the_sizes_asked_for(
        rows in 60..300usize,
        shares in shares(),
        seed: u64,
    ) {
        let split = Split::random(rows, shares, seed).unwrap();
        let written = serde_json::to_value(shares).unwrap();
        for (size, part) in sizes(&split, rows)?.into_iter().zip(["train", "validation", "test"]) {
            let expected = written[part].as_f64().unwrap() * rows as f64;
            prop_assert!((size as f64 - expected).abs() < 1.0 + 1e-9, "{part}: {size} vs {expected}");
        }
        prop_assert_eq!(&split, &Split::random(rows, shares, seed).unwrap());
        prop_assert_ne!(&split, &Split::random(rows, shares, seed.wrapping_add(1)).unwrap());
    }

    #[test]
    fn every_label_is_divided_by_the_shares(labels in vec(1..6i32, 100..300), shares in shares(), seed: u64) {
        let labels: Vec<f64> = labels.into_iter().map(f64::from).collect();
        let split = Split::stratified(&labels, shares, seed).unwrap();
        sizes(&split, labels.len())?;
        let written = serde_json::to_value(shares).unwrap();
        let parts = [split.train.positions(), split.validation.positions(), split.test.positions()];
        for (positions, part) in parts.into_iter().zip(["train", "validation", "test"]) {
            for class in [1.0, 2.0, 3.0, 4.0, 5.0] {
                let is_class = |label: &&f64| **label == class;
                let found = positions.iter().map(|&row| &labels[row]).filter(is_class).count() as f64;
                let expected = written[part].as_f64().unwrap() * labels.iter().filter(is_class).count() as f64;
                // At either end of a class the dealing is off by less than one row.
                prop_assert!((found - expected).abs() < 2.0 + 1e-9, "{part}, {class}: {found} vs {expected}");
            }
        }
    }

    #[test]
    fn what_is_encoded_can_be_decoded(
        cells in vec((option::of(-1e6..1e6f64), option::of(1..6u8), option::of("[a-c]")), 3..12),
        one_hot: bool,
    ) {
        let lines = cells.iter().map(|(a, b, c)| {
            let (a, b) = (a.map(|a| a.to_string()), b.map(|b| b.to_string()));
            format!("{}\n", [a, b, c.clone()].map(Option::unwrap_or_default).join(","))
        });
        let of = r#"
            columns.a = { kind = "numeric" }
            columns.b = { kind = "ordinal", levels = "1..5" }
            columns.c = { kind = "nominal", categories = ["a", "b", "c"] }
        "#;
        let table = table(&format!("a,b,c\n{}", lines.collect::<String>()), of);
        let config = EncoderConfig {
            ordinal: if one_hot { OrdinalCode::OneHot } else { OrdinalCode::Number },
            constant: Constant::Drop,
            ..EncoderConfig::default()
        };
        let Ok(encoder) = Encoder::fit(&table, &Rows::all(&table), &config) else { return Ok(()) };
        let all: Vec<usize> = (0..table.len()).collect();
        let encoded = encoder.rows(&table, &all).unwrap();
        prop_assert_eq!(encoded.width(), encoder.column_names().len());
        prop_assert_eq!(encoded.width(), encoder.factors().width());
        for (row, (a, b, c)) in encoded.rows().zip(&cells) {
            let factors = encoder.factors();
            for (name, answer) in factors.names().zip(encoder.decode(row)) {
                let number = |expected: Option<f64>| match (&answer, expected) {
                    // Two roundings of numbers up to a million.
                    (Answer::Number(found), Some(expected)) => (found - expected).abs() < 1e-9,
                    (Answer::Missing, None) => true,
                    _ => false,
                };
                let category =
                    |expected: Option<String>| answer == expected.map_or(Answer::Missing, Answer::Category);
                prop_assert!(match name {
                    "a" => number(*a),
                    "b" if one_hot => category(b.map(|b| b.to_string())),
                    "b" => number(b.map(f64::from)),
                    _ => category(c.clone()),
                }, "{name}: {answer:?}");
            }
        }
    }

    #[test]
    fn encoded_numbers_have_mean_0_and_variance_1(
        numbers in vec(-1e3..1e3f64, 3..40),
        scale in -200..200i32,
    ) {
        // At either end squares would vanish or overflow.
        let factor = 10f64.powi(scale);
        let lines: String = numbers.iter().map(|number| format!("{:e}\n", number * factor)).collect();
        let table = table(&format!("a\n{lines}"), "columns.a = { kind = \"numeric\" }");
        let encoder = Encoder::fit(&table, &Rows::all(&table), &EncoderConfig::default()).unwrap();
        let all: Vec<usize> = (0..numbers.len()).collect();
        let encoded: Vec<f64> = encoder.rows(&table, &all).unwrap().column(0).collect();
        let count = encoded.len() as f64;
        let mean = encoded.iter().sum::<f64>() / count;
        let variance = encoded.iter().map(|x| x * x).sum::<f64>() / count;
        prop_assert!(mean.abs() < 1e-10 && (variance - 1.0).abs() < 1e-10, "{mean} {variance}");
    }
}
