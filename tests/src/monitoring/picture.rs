//! A picture of the dashboard: the panels as Grafana lays them out, three in a row, with the lines that their queries gave.
//! Plain SVG, without scripts and fonts of its own.

use std::fmt::Write as _;

/// A panel with what its queries found, or a heading.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// What it shows.
    pub title: String,
    /// Grafana's name of the unit.
    pub unit: String,
    /// A heading has none and stands over the whole width.
    pub heading: bool,
    /// The lines.
    pub series: Vec<Series>,
}

/// A line.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// As the legend has it.
    pub name: String,
    /// Seconds since the beginning, and values.
    pub points: Vec<(f64, f64)>,
}

/// Pixels.
const WIDTH: f64 = 1260.0;
const PANEL: (f64, f64) = (410.0, 210.0);
const GAP: f64 = 10.0;
const HEADING: f64 = 34.0;
/// Left, top, right and bottom of the area of lines within a panel.
const INSET: (f64, f64, f64, f64) = (56.0, 36.0, 12.0, 58.0);
/// Names in a legend; more would not fit.
const NAMES: usize = 4;
const COLOURS: [&str; 8] = [
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
];

/// Draws panels over `seconds`.
#[must_use]
pub fn draw(panels: &[Drawn], seconds: f64) -> String {
    let mut inner = String::new();
    let (mut x, mut y) = (GAP, GAP);
    for panel in panels {
        if panel.heading {
            if x > GAP {
                y += PANEL.1 + GAP;
            }
            text(&mut inner, (GAP, y + 22.0), "heading", &panel.title);
            (x, y) = (GAP, y + HEADING);
            continue;
        }
        if x + PANEL.0 > WIDTH {
            (x, y) = (GAP, y + PANEL.1 + GAP);
        }
        draw_panel(&mut inner, (x, y), panel, seconds);
        x += PANEL.0 + GAP;
    }
    let height = y + PANEL.1 + GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>\n\
         text {{ font-family: sans-serif; font-size: 11px; fill: #444; }}\n\
         .heading {{ font-size: 16px; font-weight: bold; fill: #222; }}\n\
         .title {{ font-size: 13px; font-weight: bold; fill: #222; }}\n\
         .axis {{ text-anchor: end; }}\n\
         .box {{ fill: #fff; stroke: #ccc; }}\n\
         .grid {{ stroke: #eee; }}\n\
         .line {{ fill: none; stroke-width: 1.5; }}\n\
         </style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#f4f5f5\"/>\n{inner}</svg>\n"
    )
}

fn draw_panel(svg: &mut String, (x, y): (f64, f64), panel: &Drawn, seconds: f64) {
    let (width, height) = PANEL;
    let (left, top) = (x + INSET.0, y + INSET.1);
    let (right, bottom) = (x + width - INSET.2, y + height - INSET.3);
    put(
        svg,
        &format!(
            "<rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"3\"/>"
        ),
    );
    text(svg, (x + 12.0, y + 20.0), "title", &panel.title);
    let values = panel.series.iter().flat_map(|series| &series.points);
    let most = values.map(|(_, value)| *value).fold(0.0, f64::max);
    let top_value = round_up(most);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let at = bottom - share * (bottom - top);
        put(
            svg,
            &format!(
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            ),
        );
        if quarter % 2 == 0 {
            let value = shown(top_value * share, &panel.unit);
            text(svg, (left - 6.0, at + 4.0), "axis", &value);
        }
    }
    for (series, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        let points = series.points.iter().map(|(second, value)| {
            let across = left + second / seconds * (right - left);
            let up = bottom - value.max(0.0) / top_value * (bottom - top);
            format!("{across:.1},{up:.1}")
        });
        let points: Vec<String> = points.collect();
        let points = points.join(" ");
        put(
            svg,
            &format!("<polyline class=\"line\" stroke=\"{colour}\" points=\"{points}\"/>"),
        );
    }
    legend(svg, (x + 12.0, bottom + 20.0), &panel.series);
}

/// Up to [`NAMES`] names, two in a line, and how many more there are.
fn legend(svg: &mut String, (x, y): (f64, f64), series: &[Series]) {
    let more = series.len().saturating_sub(NAMES);
    for (number, (series, colour)) in series.iter().zip(COLOURS).take(NAMES).enumerate() {
        let column = if number % 2 == 0 {
            0.0
        } else {
            PANEL.0 / 2.0 - 10.0
        };
        let line = if number < 2 { 0.0 } else { 18.0 };
        let (x, y) = (x + column, y + line);
        put(
            svg,
            &format!(
                "<rect x=\"{x}\" y=\"{:.1}\" width=\"12\" height=\"3\" fill=\"{colour}\"/>",
                y - 5.0
            ),
        );
        let mut name: String = series.name.chars().take(26).collect();
        if number + 1 == NAMES && more > 0 {
            let _ = write!(name, ", {more} more");
        }
        text(svg, (x + 18.0, y), "name", &name);
    }
}

fn put(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    put(
        svg,
        &format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"),
    );
}

/// The next of 1, 2 and 5 times a power of ten: a good end of an axis. One where there is nothing to show.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    // What floating point makes a little more than a step is that step.
    let fits = |step: &&f64| value <= **step * 1.000_001;
    steps.iter().find(fits).copied().unwrap_or(value)
}

/// A value with its unit, as short as an axis wants it.
fn shown(value: f64, unit: &str) -> String {
    match unit {
        "percent" => format!("{} %", short(value)),
        "s" if value >= 86_400.0 => format!("{} d", short(value / 86_400.0)),
        "s" if value > 0.0 && value < 1.0 => format!("{} ms", short(value * 1000.0)),
        "s" => format!("{} s", short(value)),
        "cps" | "pps" | "reqps" => format!("{}/s", short(value)),
        _ => short(value),
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_value() {
        for (value, end) in [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (7.0, 10.0),
            (120.0, 200.0),
        ] {
            let seen = round_up(value);
            assert!((seen - end).abs() < 1e-9, "{value}: {seen}");
        }
    }

    #[test]
    fn values_have_units_that_people_read() {
        for (value, unit, words) in [
            (0.005, "s", "5 ms"),
            (2.0, "s", "2 s"),
            (2_592_000.0, "s", "30 d"),
            (50.0, "percent", "50 %"),
            (2.5, "cps", "2.5/s"),
            (65_536.0, "none", "65536"),
        ] {
            assert_eq!(shown(value, unit), words);
        }
    }

    #[test]
    fn a_panel_has_its_title_its_lines_and_their_names() {
        let series = |name: &str| Series {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (10.0, 2.0)],
        };
        let panel = Drawn {
            title: "Pools < all".to_owned(),
            series: ["a", "b", "c", "d", "e"].map(series).into(),
            ..Drawn::default()
        };
        let heading = Drawn {
            title: "Addresses".to_owned(),
            heading: true,
            ..Drawn::default()
        };
        let svg = draw(&[heading, panel.clone(), panel], 10.0);
        assert_eq!(svg.matches("<polyline").count(), 10);
        assert!(svg.contains("Pools &lt; all"), "{svg}");
        assert!(svg.contains("d, 1 more"), "{svg}");
        assert!(svg.contains(">Addresses</text>"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
