//! Histograms as SVG: bars, a line below them, and a few numbers.

use squad_data::stats::Stats;

/// Panels beside each other.
const COLUMNS: usize = 3;
/// Size of a panel, and of the bars' area within it.
const PANEL: (f64, f64) = (300.0, 190.0);
const AREA: (f64, f64) = (270.0, 120.0);

/// Every length and the places of answers, a panel for each.
pub(super) fn picture(title: &str, stats: &Stats) -> String {
    let mut panels: Vec<String> = stats
        .lengths
        .iter()
        .map(|measure| {
            let name = format!("{} in {}", measure.of, measure.unit);
            bars(&name, &measure.histogram.counts, measure.histogram.width)
        })
        .collect();
    panels.push(bars("answers by where they start, in % of the context", &stats.answer_tenths, 10));
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL.0 * COLUMNS as f64, 40.0 + PANEL.1 * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"15\" y=\"25\" font-size=\"16\">{}: {} questions</text>\n",
        escaped(title),
        stats.questions
    );
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * PANEL.0 + 15.0, (index / COLUMNS) as f64 * PANEL.1 + 40.0);
        svg += &format!("<g transform=\"translate({x} {y})\">\n{panel}</g>\n");
    }
    svg + "</svg>\n"
}

/// One panel; each bar tells its range and count where the mouse rests on it.
fn bars(name: &str, counts: &[usize], width: usize) -> String {
    let highest = counts.iter().copied().max().unwrap_or(0).max(1);
    let step = AREA.0 / counts.len().max(1) as f64;
    let floor = 25.0 + AREA.1;
    let mut panel = format!("<text y=\"12\">{}, at most {highest} in a bar</text>\n", escaped(name));
    for (index, count) in counts.iter().enumerate() {
        let (from, height) = (index * width, AREA.1 * *count as f64 / highest as f64);
        panel += &format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#4477aa\">\
             <title>from {from}: {count}</title></rect>\n",
            index as f64 * step,
            floor - height,
            step * 0.9
        );
        if index % counts.len().div_ceil(6) == 0 {
            panel +=
                &format!("<text x=\"{:.1}\" y=\"{:.1}\">{from}</text>\n", index as f64 * step, floor + 14.0);
        }
    }
    panel + &format!("<path d=\"M0 {floor}H{}\" stroke=\"#333\"/>\n", AREA.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
