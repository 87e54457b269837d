//! Measures shims side by side: `cargo bench --bench shims`.
//!
//! Every shim is driven directly over ttrpc, with no containerd in between, over the same crun, in
//! turn, so that whatever else the machine does falls on all alike. `bare` is crun itself, driven
//! by hand: the floor. Figures are printed, never asserted. See [`Options::HELP`] for what can be
//! chosen; the bed has to be there (tests/bed/fetch).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for developers, whose output is its purpose and whose failure is loud"
)]

mod chart;
mod contender;
mod crowd;
mod guest;
mod idle;
mod lifecycle;
mod output;
mod table;

#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../support/mod.rs"]
mod support;

use contender::Contender;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use support::bed;
use table::Targets;

/// How often what is measured.
struct Options {
    rounds: usize,
    execs: usize,
    outputs: usize,
    mib: usize,
    crowd: usize,
    idle: usize,
    go_idle: usize,
    only: Vec<String>,
    svg: Option<PathBuf>,
}

impl Options {
    /// What `--help` prints.
    const HELP: &'static str = "\
usage: cargo bench --bench shims [-- OPTIONS]

  --rounds N     lives of a container per shim (20)
  --execs N      execs per shim (30)
  --outputs N    outputs per shim (3)
  --mib N        MiB of each output (1024)
  --crowd N      containers at once (50)
  --idle N       idle supervisors of nexcage (200)
  --go-idle N    idle supervisors of each other shim (0)
  --only PART    lives, exec, guest, output, crowd, idle; may be given again

  --svg FILE     draws the lives, the execs and the idle supervisors

  NEXCAGE_BED          folder of tests/bed/fetch
  NEXCAGE_SHIM         another build of nexcage's shim
  NEXCAGE_BENCH_SHIMS  more shims, separated by colons
";

    fn parse() -> Self {
        let mut options = Self {
            rounds: 20,
            execs: 30,
            outputs: 3,
            mib: 1024,
            crowd: 50,
            idle: 200,
            go_idle: 0,
            only: Vec::new(),
            svg: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = |at: &mut usize| {
                let value = words.next().and_then(|text| text.parse().ok());
                *at = value.unwrap_or_else(|| panic!("{word} needs a number"));
            };
            match word.as_str() {
                // cargo adds this one.
                "--bench" => {}
                "--rounds" => number(&mut options.rounds),
                "--execs" => number(&mut options.execs),
                "--outputs" => number(&mut options.outputs),
                "--mib" => number(&mut options.mib),
                "--crowd" => number(&mut options.crowd),
                "--idle" => number(&mut options.idle),
                "--go-idle" => number(&mut options.go_idle),
                "--svg" => options.svg = words.next().map(PathBuf::from),
                "--only" => options.only.extend(words.next()),
                _ => {
                    print!("{}", Self::HELP);
                    std::process::exit(i32::from(word != "--help"));
                }
            }
        }
        options
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

fn main() {
    let options = Options::parse();
    if !bed::is_inside() {
        let enter = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/enter");
        let mut again = Command::new(enter);
        again.arg(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
        panic!("{enter}: {}", again.exec());
    }
    bed::check();
    // A container's process becomes this program's child when crun, run by hand, has ended.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let contenders = Contender::all();
    let machine = machine(&contenders);
    let mut targets = Targets::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if options.wants("lives") {
            lifecycle::lives(&contenders, options.rounds, &mut targets).await;
        }
        if options.wants("exec") {
            lifecycle::execs(&contenders, options.execs, &mut targets).await;
        }
        if options.wants("guest") {
            let nexcage = contenders.iter().find(|contender| contender.is_nexcage()).unwrap();
            guest::guests(nexcage, options.rounds, options.execs, &mut targets).await;
            guest::pct(nexcage, options.rounds, &mut targets).await;
        }
        if options.wants("output") {
            output::outputs(&contenders, options.outputs, options.mib, &mut targets).await;
        }
        if options.wants("crowd") {
            crowd::crowd(&contenders, options.crowd).await;
        }
        if options.wants("idle") {
            idle::one(&contenders, &mut targets).await;
            idle::many(&contenders, options.idle, options.go_idle, &mut targets).await;
        }
    });
    targets.print();
    if let Some(file) = options.svg {
        targets.chart.draw(&file, &machine);
    }
}

/// What the figures are figures of, in full on standard output, and in one line.
fn machine(contenders: &[Contender]) -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("Linux {}, {cores} cores, load {}", release.trim(), load.trim());
    let crun = Command::new(bed::crun()).arg("--version").output().unwrap().stdout;
    let crun = String::from_utf8_lossy(&crun).lines().next().unwrap_or_default().to_owned();
    println!("{crun}");
    for contender in contenders {
        println!("{}: {}", contender.name, contender.version());
    }
    if cfg!(debug_assertions) && std::env::var_os("NEXCAGE_SHIM").is_none() {
        println!("NOTE: this is a debug build of nexcage: its figures mean nothing");
    }
    let kernel = release.split('-').next().unwrap_or_default();
    format!("Medians, less is better. {cores} cores, Linux {kernel}, {crun}.")
}
