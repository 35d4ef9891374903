//! Bandwidth over size, and the phases of a step, as SVG.

use anyhow::anyhow;
use plotters::prelude::*;
use squad_collective::bench::Report;
use squad_proto::step_bench::StepBench;

use super::links::Scaling;
use crate::sizes::shown;

/// Width and height in pixels.
const SIZE: (u32, u32) = (600, 450);
const INK: RGBColor = RGBColor(0x44, 0x77, 0xaa);
const OTHER: RGBColor = RGBColor(0xee, 0x66, 0x77);
const PALE: RGBColor = RGBColor(0xbb, 0xbb, 0xbb);

/// Bus bandwidth of every size, on logarithmic axes, with the bound where it was measured.
pub(super) fn picture(report: &Report) -> anyhow::Result<String> {
    let rows = &report.results;
    let sizes = || rows.iter().map(|row| row.bytes as f64);
    let (least, most) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let reached: Vec<(f64, f64)> = rows.iter().map(|row| (row.bytes as f64, row.busbw)).collect();
    let bound: Vec<(f64, f64)> = rows.iter().filter_map(|row| Some((row.bytes as f64, row.bound?))).collect();
    let rates = || reached.iter().chain(&bound).map(|(_, rate)| *rate).filter(|rate| *rate > 0.0);
    let lowest = rates().fold(f64::INFINITY, f64::min).min(1.0) / 2.0;
    let highest = rates().fold(1.0, f64::max) * 2.0;
    let mut svg = String::new();
    {
        let wrong = |error: &dyn std::fmt::Display| anyhow!("cannot draw: {error}");
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| wrong(&e))?;
        let title = format!("All-reduce, {} ranks over {}", report.np, report.transport);
        let across = (least / 2.0..most * 2.0).log_scale();
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .caption(title, ("sans-serif", 17))
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d(across, (lowest..highest).log_scale())
            .map_err(|e| wrong(&e))?;
        chart
            .configure_mesh()
            .x_desc("Size of the buffer")
            .y_desc("Bus bandwidth, GB/s")
            .x_label_formatter(&|bytes| shown(bytes.round() as usize))
            .light_line_style(WHITE)
            .draw()
            .map_err(|e| wrong(&e))?;
        for (points, colour) in [(bound, PALE), (reached, INK)] {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(|e| wrong(&e))?;
            chart
                .draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))
                .map_err(|e| wrong(&e))?;
        }
        root.present().map_err(|e| wrong(&e))?;
    }
    Ok(svg)
}

/// What a transport is called in pictures of how it scales.
pub(super) fn way(transport: &str) -> &str {
    match transport {
        "tcp" => "ring",
        other => other,
    }
}

/// Time of the largest size over the number of ranks, one line for each way.
pub(super) fn scaling(scaling: &Scaling) -> anyhow::Result<String> {
    let bytes = scaling.runs.iter().flat_map(|run| &run.results).map(|row| row.bytes).max().unwrap_or(0);
    let points = |transport: &str| -> Vec<(f64, f64)> {
        let of = scaling.runs.iter().filter(|run| run.transport == transport);
        of.filter_map(|run| {
            let row = run.results.iter().find(|row| row.bytes == bytes)?;
            Some((run.np as f64, row.median_s * 1e3))
        })
        .collect()
    };
    let lines: Vec<_> =
        [("tcp", INK), ("server", OTHER)].map(|(name, colour)| (way(name), points(name), colour)).into();
    let all = || lines.iter().flat_map(|(_, points, _)| points);
    let most = all().map(|point| point.0).fold(2.0, f64::max);
    let longest = all().map(|point| point.1).fold(0.0, f64::max) * 1.1;
    let mut svg = String::new();
    {
        let wrong = |error: &dyn std::fmt::Display| anyhow!("cannot draw: {error}");
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| wrong(&e))?;
        let title = format!("All-reduce of {}, links of {} Gbit/s", shown(bytes), scaling.link_gbps);
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .caption(title, ("sans-serif", 17))
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d(1.5..most + 0.5, 0.0..longest)
            .map_err(|e| wrong(&e))?;
        chart
            .configure_mesh()
            .x_desc("Ranks")
            .y_desc("Median time, ms")
            .x_labels(most as usize)
            .x_label_formatter(&|ranks| if ranks.fract() == 0.0 { format!("{ranks}") } else { String::new() })
            .light_line_style(WHITE)
            .draw()
            .map_err(|e| wrong(&e))?;
        for (name, points, colour) in &lines {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(|e| wrong(&e))?
                .label(*name)
                .legend({
                    let colour = *colour;
                    move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            chart
                .draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))
                .map_err(|e| wrong(&e))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .border_style(PALE)
            .background_style(WHITE)
            .draw()
            .map_err(|e| wrong(&e))?;
        root.present().map_err(|e| wrong(&e))?;
    }
    Ok(svg)
}

/// Milliseconds of each phase of a step, a bar for each.
pub(super) fn phases(bench: &StepBench) -> anyhow::Result<String> {
    let phases = bench.phases.named();
    let longest = phases.iter().map(|(_, seconds)| 1e3 * seconds).fold(1e-6, f64::max) * 1.1;
    let mut svg = String::new();
    {
        let wrong = |error: &dyn std::fmt::Display| anyhow!("cannot draw: {error}");
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| wrong(&e))?;
        let title =
            format!("A step of {} x {} in {} on {}", bench.batch, bench.seq, bench.dtype, bench.device);
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .caption(title, ("sans-serif", 17))
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d((0..phases.len() - 1).into_segmented(), 0.0..longest)
            .map_err(|e| wrong(&e))?;
        let name = |place: &SegmentValue<usize>| match place {
            SegmentValue::CenterOf(index) => phases.get(*index).map_or("", |(name, _)| name).to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_desc("Time, ms")
            .x_label_formatter(&name)
            .light_line_style(WHITE)
            .draw()
            .map_err(|e| wrong(&e))?;
        let bars = phases.iter().enumerate().map(|(index, (_, seconds))| {
            let corners =
                [(SegmentValue::Exact(index), 0.0), (SegmentValue::Exact(index + 1), 1e3 * seconds)];
            let mut bar = Rectangle::new(corners, INK.filled());
            bar.set_margin(0, 0, 12, 12);
            bar
        });
        chart.draw_series(bars).map_err(|e| wrong(&e))?;
        root.present().map_err(|e| wrong(&e))?;
    }
    Ok(svg)
}
