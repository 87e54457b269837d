//! The figures as a picture: bars in groups, one group a figure, one bar a shim.

use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 720.0;
const NAMES: f64 = 170.0;
const BAR: f64 = 18.0;
const GAP: f64 = 6.0;
const HEAD: f64 = 34.0;

/// Collects what is measured, in its order.
#[derive(Default)]
pub struct Chart(Vec<Group>);

struct Group {
    title: &'static str,
    bars: Vec<(String, f64)>,
}

impl Chart {
    /// Adds one bar to the group of that title (with its unit); less is better in all of them.
    pub fn bar(&mut self, title: &'static str, name: &str, value: f64) {
        let bar = (name.to_owned(), value);
        match self.0.iter_mut().find(|group| group.title == title) {
            Some(group) => group.bars.push(bar),
            None => self.0.push(Group { title, bars: vec![bar] }),
        }
    }

    /// Draws it.
    pub fn draw(&self, file: &Path, machine: &str) {
        std::fs::write(file, self.svg(machine)).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    }

    fn svg(&self, machine: &str) -> String {
        let mut body = String::new();
        let mut y = 4.0;
        for group in &self.0 {
            write!(body, r#"<text class="t" x="0" y="{:.0}">"#, y + 18.0).unwrap();
            writeln!(body, "{}</text>", escaped(group.title)).unwrap();
            y += HEAD - 6.0;
            let most = group.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
            for (name, value) in &group.bars {
                let width = (value / most * (WIDTH - NAMES - 80.0)).max(1.0);
                let class = if name == "nexcage" { "n" } else { "o" };
                let (text, end) = (y + BAR - 5.0, NAMES + width + 6.0);
                writeln!(
                    body,
                    "<text x=\"{:.0}\" y=\"{text:.0}\" text-anchor=\"end\">{}</text>\
                     <rect class=\"{class}\" x=\"{NAMES:.0}\" y=\"{y:.0}\" width=\"{width:.1}\" \
                     height=\"{BAR:.0}\"/><text x=\"{end:.0}\" y=\"{text:.0}\">{value:.1}</text>",
                    NAMES - 8.0,
                    escaped(name)
                )
                .unwrap();
                y += BAR + GAP;
            }
            y += GAP;
        }
        y += 14.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {:.0}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<style>text{{fill:#444}}.t{{font-weight:\
             bold;font-size:14px}}.n{{fill:#2a7de1}}.o{{fill:#b8bec6}}\
             @media(prefers-color-scheme:dark){{text{{fill:#ccc}}.o{{fill:#666d75}}}}</style>\n\
             {body}<text x=\"0\" y=\"{y:.0}\" font-size=\"11\">{}</text>\n</svg>\n",
            y + 8.0,
            escaped(machine)
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
