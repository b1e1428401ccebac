//! SVG without a library: bars, and lines.

use std::fmt::Write;

const COLOURS: [&str; 6] = [
    "#888888", "#c2410c", "#2563eb", "#0d9488", "#9333ea", "#65a30d",
];
const WIDTH: f64 = 720.0;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn begin(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">{}</text>\n",
        escape(title)
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Groups of bars, one bar a name.
pub fn bars(title: &str, names: &[String], groups: &[(String, Vec<Option<f64>>)]) -> String {
    let rows: usize = groups
        .iter()
        .map(|(_, values)| values.iter().flatten().count())
        .sum();
    let height = 40.0 + rows as f64 * 17.0 + groups.len() as f64 * 12.0;
    let mut svg = begin(height, title);
    let most = groups
        .iter()
        .flat_map(|(_, values)| values.iter().flatten());
    let most = most.copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut y = 38.0;
    for (group, values) in groups {
        text(&mut svg, 130.0, y + 12.0, "end", group);
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let colour = COLOURS[index % COLOURS.len()];
            let width = (value / most * (WIDTH - 330.0)).max(1.0);
            let _ = writeln!(
                svg,
                "<rect x=\"140\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>"
            );
            let label = format!("{}  {}", number(*value), names[index]);
            text(&mut svg, 146.0 + width, y + 12.0, "start", &label);
            y += 17.0;
        }
        y += 12.0;
    }
    svg + "</svg>\n"
}

/// Lines through points, one line a name.
pub fn lines(title: &str, across: &str, lines: &[(String, Vec<(f64, f64)>)]) -> String {
    let (left, top, wide, high) = (60.0, 40.0, WIDTH - 180.0, 260.0);
    let mut svg = begin(350.0, title);
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most_x = points().map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max);
    let most_y = points().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let y = top + high - share * high;
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>",
            left + wide
        );
        text(
            &mut svg,
            left - 6.0,
            y + 4.0,
            "end",
            &number(share * most_y),
        );
        let x = left + share * wide;
        text(
            &mut svg,
            x,
            top + high + 18.0,
            "middle",
            &format!("{:.0}", share * most_x),
        );
    }
    text(
        &mut svg,
        left + wide / 2.0,
        top + high + 38.0,
        "middle",
        across,
    );
    for (index, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let place =
            |(x, y): &(f64, f64)| (left + x / most_x * wide, top + high - y / most_y * high);
        let path: Vec<String> = points
            .iter()
            .map(place)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let path = path.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        if let Some((_, y)) = points.last().map(place) {
            text(&mut svg, left + wide + 8.0, y + 4.0, "start", name);
        }
    }
    svg + "</svg>\n"
}
