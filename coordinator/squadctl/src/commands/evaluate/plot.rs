//! The official script's plots as SVG.

use std::fs::{self, Permissions};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use squad_data::score::{Curve, Curves, OddsHistogram, Scores};

/// Width and height of a plot in pixels.
const SIZE: (u32, u32) = (600, 450);
const INK: RGBColor = RGBColor(0x44, 0x77, 0xaa);

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws all there is to draw, then writes it into the folder; gives the names of the files.
pub(super) fn draw(
    folder: &Path,
    scores: &Scores<'_>,
    na_prob: &[(String, f64)],
    curves: Option<&Curves>,
) -> anyhow::Result<Vec<&'static str>> {
    let mut pictures = Vec::new();
    if let Some(curves) = curves {
        pictures.push(("pr_exact.svg", curve("Exact match", &curves.exact)));
        pictures.push(("pr_f1.svg", curve("F1", &curves.f1)));
        pictures.push(("pr_oracle.svg", curve("Oracle: answerable or not", &curves.oracle)));
    }
    if let Some(histogram) = scores.odds_histogram(na_prob, true) {
        pictures.push(("na_prob_hist_HasAns.svg", bars("Answerable questions", &histogram)));
    }
    if let Some(histogram) = scores.odds_histogram(na_prob, false) {
        pictures.push(("na_prob_hist_NoAns.svg", bars("Unanswerable questions", &histogram)));
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create --curves {}", folder.display()))?;
    for (name, picture) in &pictures {
        let picture = picture.as_ref().map_err(|error| anyhow::anyhow!("cannot draw {name}: {error:#}"))?;
        let path = folder.join(name);
        write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(pictures.into_iter().map(|(name, _)| name).collect())
}

/// Precision over recall as steps. The area below them is the average precision.
fn curve(of: &str, curve: &Curve) -> anyhow::Result<String> {
    let (mut corners, mut recall) = (vec![], 0.0);
    for point in &curve.points {
        corners.extend([(recall, point.precision), (point.recall, point.precision)]);
        recall = point.recall;
    }
    // Ten thousand questions have more steps than the plot has pixels.
    corners.dedup_by_key(|(recall, precision)| ((*recall * 1000.0).round(), (*precision * 1000.0).round()));
    let mut svg = String::new();
    {
        let root = canvas(&mut svg)?;
        let title = format!("{of}: average precision {:.2} %", curve.ap);
        let mut chart = frame(&root, &title, ("Recall", "Precision"), 0.0..1.05)?;
        chart.draw_series(AreaSeries::new(corners, 0.0, INK.mix(0.25)).border_style(INK.stroke_width(2)))?;
        root.present()?;
    }
    Ok(svg)
}

/// The parts of the questions that lie in each range of null odds.
fn bars(of: &str, histogram: &OddsHistogram) -> anyhow::Result<String> {
    let questions = histogram.questions();
    let shares = histogram.bars.map(|count| count as f64 / questions as f64);
    let width = 1.0 / shares.len() as f64;
    let highest = shares.iter().copied().fold(0.0, f64::max);
    let height = if highest > 0.0 { 1.05 * highest } else { 1.0 };
    let across = match histogram.outside {
        0 => "Probability of no answer".to_owned(),
        outside => format!("Probability of no answer ({outside} outside 0 to 1 are not drawn)"),
    };
    let mut svg = String::new();
    {
        let root = canvas(&mut svg)?;
        let title = format!("{of}: probability of no answer ({questions})");
        let mut chart = frame(&root, &title, (&across, "Part of the questions"), 0.0..height)?;
        chart.draw_series(shares.iter().enumerate().map(|(index, share)| {
            let left = index as f64 * width;
            Rectangle::new([(left + 0.05 * width, 0.0), (left + 0.95 * width, *share)], INK.filled())
        }))?;
        root.present()?;
    }
    Ok(svg)
}

fn canvas(svg: &mut String) -> anyhow::Result<DrawingArea<SVGBackend<'_>, Shift>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    Ok(root)
}

/// Title, axes with ticks and names, and a grid; from 0 to 1 across.
fn frame<'a>(
    root: &DrawingArea<SVGBackend<'a>, Shift>,
    title: &str,
    (across, up): (&str, &str),
    height: Range<f64>,
) -> anyhow::Result<Chart<'a>> {
    let mut chart = ChartBuilder::on(root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(48)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..1.0, height)?;
    chart
        .configure_mesh()
        .x_desc(across)
        .y_desc(up)
        .x_labels(11)
        .y_labels(11)
        .light_line_style(TRANSPARENT)
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 14))
        .draw()?;
    Ok(chart)
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Without this nobody else could read what is only temporary until it is renamed; the umask still counts.
    let readable = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
