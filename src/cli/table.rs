//! Columns for people.

/// Rows below a header, each column as wide as its widest cell, two spaces apart.
pub(super) fn lay_out<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut all = vec![header.map(str::to_owned)];
    all.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = all.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut page = String::new();
    for row in &all {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page
}
