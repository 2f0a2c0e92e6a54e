//! `ghostctl routes`.

use comfy_table::Cell;

use crate::{
    cli::look::{self, Look, Tone, count, printable, right, toned},
    control::dto::{RouteDto, RoutesDto},
};

/// One row a route where that fits, or goes to a pipe; else addresses below
/// each other, because half an address is no use to anyone.
pub fn routes(routes: &RoutesDto, look: Look) -> String {
    if routes.routes.is_empty() {
        return "no routes\n".to_owned();
    }
    let wide = wide(
        &routes.routes,
        Look {
            width: None,
            ..look
        },
    );
    let Some(width) = look.width else {
        return wide;
    };
    // Colours take no columns; they are not there in a plain table.
    let plain = self::wide(
        &routes.routes,
        Look {
            color: false,
            width: None,
        },
    );
    let fits = plain
        .lines()
        .all(|l| l.chars().count() <= usize::from(width));
    if fits {
        wide
    } else {
        tall(&routes.routes, look)
    }
}

fn wide(routes: &[RouteDto], look: Look) -> String {
    let mut table = look.table(&[
        "INSTANCE",
        "SERVICE",
        "PRIMARY",
        "GHOST",
        "TO PRIMARY",
        "TO GHOST",
        "REPLIES",
        "NOT FAST",
    ]);
    for route in routes {
        let RouteDto {
            instance,
            service,
            primary,
            ghost,
            counter: _,
            counters,
        } = route;
        let traffic = counters.traffic;
        let reasons: Vec<String> = reasons(route).map(|(r, n)| format!("{r}={n}")).collect();
        table.add_row([
            printable(instance).into(),
            service.to_string().into(),
            primary.to_string().into(),
            ghost.to_string().into(),
            right(count(traffic.primary_packets)),
            right(count(traffic.ghost_packets)),
            right(count(traffic.reverse_packets)),
            not_fast(&reasons.join(",")),
        ]);
    }
    look::lines(&table)
}

fn tall(routes: &[RouteDto], look: Look) -> String {
    let mut table = look.table(&["INSTANCE", "ROUTE", "PACKETS", "BYTES"]);
    for route in routes {
        let traffic = route.counters.traffic;
        let row = |first: String, text: String, packets, bytes: Option<u64>| {
            let bytes = bytes.map_or(String::new(), count);
            [
                first.into(),
                text.into(),
                right(count(packets)),
                right(bytes),
            ]
        };
        let name = printable(&route.instance);
        let (replies, bytes) = (traffic.reverse_packets, traffic.reverse_bytes);
        table.add_row(row(
            name,
            format!("{} replies", route.service),
            replies,
            Some(bytes),
        ));
        let sides = [
            (
                "primary",
                route.primary,
                traffic.primary_packets,
                traffic.primary_bytes,
            ),
            (
                "ghost",
                route.ghost,
                traffic.ghost_packets,
                traffic.ghost_bytes,
            ),
        ];
        for (side, target, packets, bytes) in sides {
            let text = format!("  {side} {target}");
            table.add_row(row(String::new(), text, packets, Some(bytes)));
        }
        for (reason, number) in seen(route) {
            let mut row = row(String::new(), String::new(), number, None);
            row[1] = toned(Tone::Notice, &format!("  {}", printable(reason)));
            table.add_row(row);
        }
    }
    look::lines(&table)
}

/// Reasons that occurred.
fn seen(route: &RouteDto) -> impl Iterator<Item = (&str, u64)> {
    let all = route.counters.reasons.iter();
    all.map(|(r, n)| (r.as_str(), *n)).filter(|(_, n)| *n > 0)
}

fn reasons(route: &RouteDto) -> impl Iterator<Item = (String, String)> {
    seen(route).map(|(reason, n)| (printable(reason), count(n)))
}

fn not_fast(text: &str) -> Cell {
    if text.is_empty() {
        Cell::new("-")
    } else {
        toned(Tone::Notice, text)
    }
}
