//! What workers' own descriptors tell: tasks that wait for them and wake the event loop.

use std::{io, os::fd::AsFd as _};

use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{debug, info, warn};

use super::launcher::Launcher;
use crate::{
    config::Ready,
    fleet::Event,
    ipc::{Channel, Closed, Message},
    sys::{notify::NotifySocket, readable::Readable},
    worker::WorkerId,
};

/// Something to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// The notification socket has a message.
    Notified(WorkerId),
    /// The IPC channel has a message.
    Message(WorkerId),
    /// A main process that is not our child has ended.
    Ended(WorkerId),
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the loop whenever there is something to read.
pub(super) fn when_ready(to: &mpsc::Sender<News>, readable: Readable, news: News) -> Task {
    let to = to.clone();
    Task(tokio::spawn(async move {
        while readable.ready().await.is_ok() && to.send(news).await.is_ok() {}
    }))
}

/// A worker's IPC channel, and the task that watches it.
#[derive(Debug)]
pub(super) struct Ipc {
    pub(super) channel: Channel,
    _task: Task,
}

impl Ipc {
    pub(super) fn new(
        to: &mpsc::Sender<News>,
        worker: WorkerId,
        channel: Channel,
    ) -> io::Result<Self> {
        let task = when_ready(to, Readable::new(channel.as_fd())?, News::Message(worker));
        Ok(Self {
            channel,
            _task: task,
        })
    }
}

/// A worker's notification socket, and the task that watches it.
#[derive(Debug)]
pub(super) struct Notify {
    pub(super) socket: NotifySocket,
    _task: Task,
}

impl Notify {
    pub(super) fn new(
        to: &mpsc::Sender<News>,
        worker: WorkerId,
        socket: NotifySocket,
    ) -> io::Result<Self> {
        let task = when_ready(to, Readable::new(socket.as_fd())?, News::Notified(worker));
        Ok(Self {
            socket,
            _task: task,
        })
    }
}

impl Launcher {
    /// Looks at what a worker has to say.
    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Notified(worker) => self.on_notified(worker),
            News::Message(worker) => self.on_message(worker),
            News::Ended(worker) => self.on_ended(worker),
        }
    }

    fn on_notified(&mut self, worker: WorkerId) {
        let Some(running) = self.running.get_mut(&worker) else {
            return;
        };
        let mut ready = false;
        while let Some(said) = running
            .notify
            .as_ref()
            .and_then(|notify| notify.socket.receive())
        {
            ready |= said.ready;
            if let Some(status) = said.status {
                debug!("worker {worker} says: {status}");
                running.status_text = Some(status).filter(|status| !status.is_empty());
            }
        }
        if ready && self.plan.ready == Ready::Notify {
            self.said_ready(worker);
        }
    }

    fn on_message(&mut self, worker: WorkerId) {
        let Some(ipc) = self
            .running
            .get_mut(&worker)
            .and_then(|running| running.ipc.as_mut())
        else {
            return;
        };
        let received = ipc.channel.receive();
        let closed = received.closed;
        if received.more {
            // Nothing else will wake us for the rest.
            let _ = self.news.try_send(News::Message(worker));
        }
        for message in received.messages {
            match message {
                Message::Ready => {
                    debug!("worker {worker} says that it is ready");
                    if self.plan.ready == Ready::Node {
                        self.said_ready(worker);
                    }
                }
                Message::Other(value) => info!("worker {worker} sent {value}"),
            }
        }
        if let Some(closed) = closed {
            match closed {
                Closed::ByWorker => debug!("worker {worker} has closed its IPC channel"),
                Closed::Broken(why) => warn!("the IPC channel of worker {worker} is closed: {why}"),
            }
            if let Some(running) = self.running.get_mut(&worker) {
                running.ipc = None;
            }
        }
    }

    /// A worker says that it is ready. It counts once it listens too: a worker that cannot be sent
    /// anything would replace one that can.
    fn said_ready(&mut self, worker: WorkerId) {
        // Its sockets may be known to the kernel, and not yet to us.
        self.catch_up();
        if let Some(running) = self.running.get_mut(&worker) {
            running.said_ready = true;
            if running.listens {
                self.feed(Event::Ready { worker });
            }
        }
    }

    /// A worker has a member. Whether that is enough is for the way of readiness to say.
    pub(super) fn on_listening(&mut self, worker: WorkerId) {
        self.feed(Event::Listening { worker });
        let Some(running) = self.running.get_mut(&worker) else {
            return;
        };
        running.listens = true;
        match self.plan.ready {
            Ready::Listen => self.feed(Event::Ready { worker }),
            Ready::Notify | Ready::Node if running.said_ready => self.feed(Event::Ready { worker }),
            Ready::Notify | Ready::Node => {}
            Ready::Tcp | Ready::Http(_) => self.await_readiness(worker),
        }
    }
}
