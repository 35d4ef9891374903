//! Bandwidth over size as SVG.

use anyhow::anyhow;
use plotters::prelude::*;
use squad_collective::bench::Report;

use crate::sizes::shown;

/// Width and height in pixels.
const SIZE: (u32, u32) = (600, 450);
const INK: RGBColor = RGBColor(0x44, 0x77, 0xaa);
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
