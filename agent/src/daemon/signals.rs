//! SIGTERM and SIGINT stop, SIGHUP reads the configuration again.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::orchestrate::driver::Order;

/// From now on these signals are orders, and end nobody.
pub(super) fn listen(order: watch::Sender<Order>) -> io::Result<JoinHandle<()>> {
    let stops = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let reloads = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(pass_on(stops, reloads, order)))
}

async fn pass_on([mut term, mut int]: [Signal; 2], mut hup: Signal, order: watch::Sender<Order>) {
    let mut reloads = 0;
    loop {
        // Each arm is cancel safe: a signal that was not received stays.
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => {
                reloads += 1;
                order.send_replace(Order::Reload(reloads));
            }
        }
    }
    order.send_replace(Order::Stop);
    // Kept open, or its end would be taken for another order.
    order.closed().await;
}
