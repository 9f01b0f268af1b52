//! What workers' own descriptors tell: tasks that wait for them and wake the event loop.

use std::{io, os::fd::AsFd as _, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tracing::{debug, info, warn};

use super::{launcher::Launcher, worker::Running};
use crate::{
    config::Ready,
    fleet::Event,
    ipc::{Channel, Closed, Message},
    sys::{memory::MemoryWatch, notify::NotifySocket, readable::Readable},
    worker::WorkerId,
};

/// How many notifications of a worker are taken before others have their turn.
const NOTIFICATIONS: usize = 64;

/// How many messages of a worker are logged in each [`CHATTER`].
const LOGGED: u32 = 10;

/// For how long messages are counted together.
const CHATTER: Duration = Duration::from_secs(1);

/// Something to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// The notification socket has a message.
    Notified(WorkerId),
    /// The IPC channel has a message.
    Message(WorkerId),
    /// Something has changed in its memory's use.
    Memory(WorkerId),
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

/// The watch over a worker's memory, and the task that waits for it.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) watch: MemoryWatch,
    _task: Task,
}

impl Memory {
    pub(super) fn new(
        to: &mpsc::Sender<News>,
        worker: WorkerId,
        watch: MemoryWatch,
    ) -> io::Result<Self> {
        let task = when_ready(to, Readable::new(watch.as_fd())?, News::Memory(worker));
        Ok(Self { watch, _task: task })
    }
}

/// How much of what a worker sends is logged: what may fill a disk is counted instead.
#[derive(Debug, Default)]
pub(super) struct Chatter {
    /// When counting begins again.
    until: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Chatter {
    /// Counts another message. Returns whether it is to be logged.
    fn admits(&mut self, now: Instant) -> bool {
        self.until.get_or_insert(now + CHATTER);
        let admitted = self.logged < LOGGED;
        if admitted {
            self.logged += 1;
        } else {
            self.left_out += 1;
        }
        admitted
    }

    /// When to tell how many were left out, if any were.
    fn due(&self) -> Option<Instant> {
        self.until.filter(|_| self.left_out > 0)
    }

    /// Begins to count again, if it is time. Returns how many were left out until then.
    fn turn(&mut self, now: Instant) -> u64 {
        if self.until.is_some_and(|until| until <= now) {
            std::mem::take(self).left_out
        } else {
            0
        }
    }
}

impl Launcher {
    /// Goes on with what workers had to say, where it was more than one turn's.
    pub(super) fn read_on(&mut self) {
        let unread = |running: &mut Running| std::mem::take(&mut running.unread);
        let workers: Vec<WorkerId> = self
            .running
            .iter_mut()
            .filter_map(|(&worker, running)| unread(running).then_some(worker))
            .collect();
        for worker in workers {
            self.on_notified(worker);
            self.on_message(worker);
        }
    }

    /// When to tell of messages that were not logged.
    pub(super) fn chatter_due(&self) -> Option<Instant> {
        let running = self.running.values();
        running.filter_map(|running| running.chatter.due()).min()
    }

    /// Tells how many messages were not logged, where it is time.
    pub(super) fn tell_chatter(&mut self) {
        let now = Instant::now();
        for (worker, running) in &mut self.running {
            match running.chatter.turn(now) {
                0 => {}
                left_out => info!("{left_out} more messages of worker {worker}"),
            }
        }
    }

    /// Looks at what a worker has to say.
    pub(super) fn on_news(&mut self, news: News) {
        match news {
            News::Notified(worker) => self.on_notified(worker),
            News::Message(worker) => self.on_message(worker),
            News::Memory(worker) => self.on_memory(worker),
            News::Ended(worker) => self.on_ended(worker),
        }
    }

    fn on_memory(&mut self, worker: WorkerId) {
        if let Some(running) = self.running.get_mut(&worker)
            && let Some(memory) = &running.memory
            && memory.watch.exceeded()
        {
            running.memory = None;
            running.memory_exceeded = true;
            self.look_for_limits();
        }
    }

    fn on_notified(&mut self, worker: WorkerId) {
        let Some(running) = self.running.get_mut(&worker) else {
            return;
        };
        let mut ready = false;
        let mut taken = 0;
        while let Some(notify) = &running.notify {
            if taken == NOTIFICATIONS {
                running.unread = true;
                break;
            }
            let Some(said) = notify.socket.receive() else {
                break;
            };
            taken += 1;
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
        // The counting of its messages may be over.
        self.tell_chatter();
        let Some(running) = self.running.get_mut(&worker) else {
            return;
        };
        let Some(ipc) = &mut running.ipc else {
            return;
        };
        let received = ipc.channel.receive();
        let closed = received.closed;
        // Nothing else will wake us for the rest.
        running.unread |= received.more;
        let now = Instant::now();
        for message in received.messages {
            match message {
                Message::Ready => {
                    debug!("worker {worker} says that it is ready");
                    if self.plan.ready == Ready::Node {
                        self.said_ready(worker);
                    }
                }
                Message::Other(value) => {
                    let running = self.running.get_mut(&worker);
                    if running.is_some_and(|running| running.chatter.admits(now)) {
                        info!("worker {worker} sent {value}");
                    }
                }
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
        running.ports.extend(self.steering.ports(worker));
        match self.plan.ready {
            Ready::Listen => self.ready_where_others_listen(worker),
            Ready::Notify | Ready::Node if running.said_ready => self.feed(Event::Ready { worker }),
            Ready::Notify | Ready::Node => {}
            Ready::Tcp | Ready::Http(_) => self.await_readiness(worker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_messages_a_second_are_logged_and_the_rest_is_counted() {
        let mut chatter = Chatter::default();
        let start = Instant::now();
        let admitted = (0..25).filter(|_| chatter.admits(start)).count();
        assert_eq!(admitted, 10);
        let end = start + CHATTER;
        assert_eq!(chatter.due(), Some(end));
        assert_eq!(chatter.turn(start), 0);
        assert_eq!(chatter.turn(end), 15);
        assert_eq!(chatter.due(), None);
        assert_eq!(chatter.turn(end + CHATTER), 0);
        assert!(chatter.admits(end));
        assert_eq!(chatter.due(), None);
    }
}
