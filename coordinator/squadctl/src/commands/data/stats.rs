//! A question file in figures.

use anyhow::Context;
use comfy_table::{CellAlignment, Table};
use squad_data::stats::{Share, Stats, Summary};
use squad_data::{DataError, Tokenizer, squad};

use super::plot;
use crate::cli::StatsArgs;
use crate::commands::{evaluate, worker};
use crate::fault::Verdict;
use crate::output::Output;
use crate::report;

/// Counts, measures, draws and tells.
pub(super) fn stats(arguments: &StatsArgs, output: Output) -> anyhow::Result<Verdict> {
    let file = &arguments.data;
    let bytes = std::fs::read(file)
        .map_err(|source| evaluate::fault(DataError::Read { file: file.clone(), source }))?;
    let dataset = squad::survey(file, &bytes).map_err(evaluate::fault)?;
    let tokenizer = match &arguments.model {
        Some(model) => {
            worker::folder("--model", model, "squadctl models fetch brings one")?;
            Some(Tokenizer::from_folder(model)?)
        }
        None => None,
    };
    let stats = Stats::of(&dataset, tokenizer.as_ref())?;
    if let Some(path) = &arguments.plot {
        let title = file.file_name().unwrap_or_default().to_string_lossy();
        let picture = plot::picture(&title, &stats);
        std::fs::write(path, picture).with_context(|| format!("cannot write --plot {}", path.display()))?;
    }
    for oddity in &stats.oddities {
        for words in &oddity.words {
            output.talk(words);
        }
        if oddity.count > oddity.words.len() {
            output.talk(&format!("{}: {} more", oddity.kind, oddity.count - oddity.words.len()));
        }
    }
    output.answer(&stats, || text(&stats))?;
    Ok(Verdict::Done)
}

/// Counts, then lengths, then what is wrong.
fn text(stats: &Stats) -> String {
    let mut text = counts(stats) + "\n" + &lengths(stats) + "\n" + &tenths(stats);
    let odd: Vec<String> = stats
        .oddities
        .iter()
        .filter(|oddity| oddity.count > 0)
        .map(|oddity| format!("{} {}", oddity.kind, oddity.count))
        .collect();
    if !odd.is_empty() {
        text += &format!("\nwrong in the file: {}\n", odd.join(", "));
    }
    text
}

fn counts(stats: &Stats) -> String {
    let mut table = Table::new();
    table.set_header(["COUNT OF", "NUMBER", "SHARE"]);
    let plain = |count: usize| [count.to_string(), String::new()];
    let share = |share: Share| [share.count.to_string(), format!("{:.1} %", 100.0 * share.share)];
    let mut rows = vec![
        ("articles".to_owned(), plain(stats.articles)),
        ("paragraphs".to_owned(), plain(stats.paragraphs)),
        ("questions".to_owned(), plain(stats.questions)),
        ("answerable".to_owned(), share(stats.answerable)),
        ("unanswerable".to_owned(), share(stats.unanswerable)),
    ];
    for (answers, part) in stats.questions_by_answers.iter().filter(|(answers, _)| **answers > 0) {
        let noun = if *answers == 1 { "answer" } else { "answers" };
        rows.push((format!("with {answers} {noun}"), share(*part)));
    }
    if let Some(windows) = &stats.windows {
        let cut = format!("{}/{}", windows.max_seq_length, windows.doc_stride);
        rows.push((format!("windows of {cut}"), plain(windows.windows)));
        for (name, part) in
            [("1 window", windows.one), ("2 windows", windows.two), ("3+ windows", windows.three_or_more)]
        {
            rows.push((format!("in {name} of {cut}"), share(part)));
        }
    }
    table.add_rows(rows.into_iter().map(|(name, [number, share])| [name, number, share]));
    right(&mut table, 1..3);
    report::plain(table)
}

fn lengths(stats: &Stats) -> String {
    let mut table = Table::new();
    table.set_header(["LENGTH OF", "IN", "MIN", "MEDIAN", "MEAN", "P95", "MAX"]);
    for measure in &stats.lengths {
        table.add_row(row(measure.of, measure.unit, &measure.summary));
    }
    table.add_row(row("text before answers", "code points", &stats.answer_starts));
    right(&mut table, 2..7);
    report::plain(table)
}

fn row(name: &str, unit: &str, summary: &Summary) -> [String; 7] {
    let Summary { min, median, mean, p95, max, .. } = summary;
    let (median, mean) = (format!("{median:.1}"), format!("{mean:.1}"));
    [name.to_owned(), unit.to_owned(), min.to_string(), median, mean, p95.to_string(), max.to_string()]
}

/// Where answers start, tenth by tenth.
fn tenths(stats: &Stats) -> String {
    let all = stats.answer_tenths.iter().sum::<usize>().max(1) as f64;
    let shares = stats.answer_tenths.map(|count| format!("{:.1}", 100.0 * count as f64 / all));
    format!("answers that start in each tenth of their context, in percent: {}\n", shares.join("  "))
}

fn right(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
