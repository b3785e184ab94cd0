//! The tables of docs/performance.md, from the figures of a run.

use std::fmt::Write;

use serde_json::Value;

/// All tables that `file` has figures for.
pub(crate) fn all(file: &Value) -> String {
    let rows = |name: &str| file[name].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = machine(&file["machine"]);
    steps(&mut out, rows("rows"));
    job(&mut out, rows("job"));
    kernels(&mut out, rows("kernels"));
    loading(&mut out, rows("loading"));
    start(&mut out, rows("start"));
    scale(&mut out, rows("scale"));
    scale(&mut out, rows("threads"));
    out
}

/// A line of a table; writing to a string does not fail.
fn line(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn head(out: &mut String, title: &str, cells: &[&str]) {
    let _ = write!(out, "\n### {title}\n\n");
    line(out, &cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>());
    let _ = writeln!(out, "|{}", "---|".repeat(cells.len()));
}

/// A number, or nothing.
fn number(value: &Value, decimals: usize) -> String {
    value.as_f64().map_or(String::new(), |v| format!("{v:.decimals$}"))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn machine(m: &Value) -> String {
    format!(
        "Machine: {}, {}, {} threads, {}; peak of f32 {} GFLOP/s on one thread, {} on all. defrost {}, {}.\n",
        text(&m["cpu"]),
        text(&m["isa"]),
        m["threads"],
        text(&m["date"]),
        number(&m["peak_one"], 0),
        number(&m["peak_all"], 0),
        text(&m["defrost"]),
        text(&m["rustc"]),
    )
}

fn steps(out: &mut String, rows: &[Value]) {
    if rows.is_empty() {
        return;
    }
    let titles = [
        "network, batch",
        "what trains",
        "images/s",
        "MB",
        "torch",
        "times",
        "MB",
        "of its memory",
        "onnxruntime",
        "times",
    ];
    head(out, "Images a second of a step", &titles);
    for row in rows {
        let (torch, ort) = (&row["torch"], &row["onnxruntime"]);
        line(
            out,
            &[
                format!("{} b{}", text(&row["net"]), row["batch"]),
                text(&row["mode"]),
                number(&row["value"], 1),
                number(&row["mb"], 0),
                number(&torch["value"], 1),
                number(&torch["ratio"], 2),
                number(&torch["mb"], 0),
                number(&torch["mb_ratio"], 2),
                number(&ort["value"], 1),
                number(&ort["ratio"], 2),
            ],
        );
    }
}

fn job(out: &mut String, rows: &[Value]) {
    if rows.is_empty() {
        return;
    }
    head(
        out,
        "The whole job",
        &["views", "s", "MB", "waiting for images, s", "torch, s", "times", "torch, MB", "of its memory"],
    );
    for row in rows {
        let waits: f64 = row["wait_s"].as_array().into_iter().flatten().filter_map(Value::as_f64).sum();
        let torch = &row["torch"];
        let views =
            if row["views"] == 0 { "new each epoch".into() } else { format!("{} cached", row["views"]) };
        line(
            out,
            &[
                views,
                number(&row["value"], 1),
                number(&row["mb"], 0),
                format!("{waits:.2}"),
                number(&torch["value"], 1),
                number(&torch["ratio"], 2),
                number(&torch["mb"], 0),
                number(&torch["mb_ratio"], 2),
            ],
        );
    }
}

fn kernels(out: &mut String, rows: &[Value]) {
    if rows.is_empty() {
        return;
    }
    head(
        out,
        "Convolutions",
        &["network", "layer", "pass", "times a step", "ms", "GFLOP/s", "of the peak", "times `gemm`"],
    );
    for row in rows {
        line(
            out,
            &[
                text(&row["net"]),
                text(&row["layer"]),
                text(&row["pass"]),
                row["runs"].to_string(),
                number(&row["ms"], 2),
                number(&row["gflops"], 0),
                number(&row["share"], 2),
                number(&row["gemm_over_own"], 2),
            ],
        );
    }
}

fn loading(out: &mut String, rows: &[Value]) {
    if rows.is_empty() {
        return;
    }
    head(out, "Loading", &["pictures", "what", "threads", "images/s"]);
    for row in rows {
        line(
            out,
            &[text(&row["size"]), text(&row["what"]), row["threads"].to_string(), number(&row["value"], 0)],
        );
    }
}

fn start(out: &mut String, rows: &[Value]) {
    if rows.is_empty() {
        return;
    }
    head(out, "Start", &["what", "ms"]);
    for row in rows {
        let ms = row["value"].as_f64().map_or(String::new(), |s| format!("{:.1}", s * 1e3));
        line(out, &[text(&row["what"]), ms]);
    }
}

fn scale(out: &mut String, rows: &[Value]) {
    let (images, threads): (Vec<_>, Vec<_>) = rows.iter().partition(|r| r["images"].is_number());
    if !images.is_empty() {
        head(out, "Scale", &["images", "s an epoch", "ms an image", "MB"]);
        for row in images {
            let cells = [
                row["images"].to_string(),
                number(&row["value"], 2),
                number(&row["ms_an_image"], 3),
                number(&row["mb"], 0),
            ];
            line(out, &cells);
        }
    }
    if !threads.is_empty() {
        head(out, "Threads", &["what", "threads", "s", "times one"]);
        for row in threads {
            let cells = [
                text(&row["what"]),
                row["threads"].to_string(),
                number(&row["value"], 3),
                number(&row["times"], 2),
            ];
            line(out, &cells);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_becomes_tables_with_what_it_has() {
        let file = json!({
            "machine": { "cpu": "a cpu", "isa": "AVX-512", "threads": 2, "peak_one": 115.2, "peak_all": 230.0,
                "date": "2026-11-21", "defrost": "0.0.0", "rustc": "rustc 1.95.0" },
            "rows": [{ "id": "rows/x", "net": "resnet18", "mode": "all", "batch": 16, "value": 31.04, "mb": 700.4,
                "torch": { "value": 18.0, "ratio": 1.724, "mb": 1500.0, "mb_ratio": 0.467 } }],
            "scale": [{ "id": "a", "images": 1000, "value": 2.0, "ms_an_image": 2.0, "mb": 300.0 },
                { "id": "b", "what": "a step", "threads": 2, "value": 1.0, "times": 1.9 }],
            "threads": [{ "id": "c", "what": "another", "threads": 2, "value": 0.5, "times": 1.8 }],
        });
        let text = all(&file);
        assert!(
            text.starts_with("Machine: a cpu, AVX-512, 2 threads, 2026-11-21; peak of f32 115 GFLOP/s"),
            "{text}"
        );
        assert!(
            text.contains("| resnet18 b16 | all | 31.0 | 700 | 18.0 | 1.72 | 1500 | 0.47 |  |  |"),
            "{text}"
        );
        assert!(
            text.contains("| 1000 | 2.00 | 2.000 | 300 |") && text.contains("| a step | 2 | 1.000 | 1.90 |"),
            "{text}"
        );
        assert!(text.contains("| another | 2 | 0.500 | 1.80 |"), "{text}");
        assert!(!text.contains("Loading"), "{text}");
    }
}
