//! Packed events in the order of commits. The segments of a thousand aggregates may reach over each other; decoding all
//! of them for each page would take as much memory as they have, and as much time for each page. So a window of events is
//! made at once, larger than a page, one segment after the other: first only their heads, to find out which events
//! it has, then the bodies of those that have any. Whoever reads on gets larger and larger windows, so that a look at a few
//! events opens few segments, and reading everything opens each a few times.

use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Known, place};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::limits::{WINDOW_BYTES, WINDOW_EVENTS};
use crate::segment::{Owned, Place};

/// Events of the first window of a reader, at least, and how much larger the next one is.
const FIRST_WINDOW: usize = 256;
const WINDOW_GROWTH: usize = 8;

/// All packed events in a range of positions, in order.
pub struct Window {
    /// Of the range's beginning, exclusive.
    after: i64,
    /// Of its last event; the largest number where no more are packed.
    through: i64,
    /// Events that it was made for, at most.
    most: usize,
    /// The segments that reach into the range.
    places: Vec<Place>,
    /// Keys of aggregates, and their events.
    events: Vec<(i64, Owned)>,
}

impl Window {
    /// Of its last event; the largest number where no more are packed.
    pub fn through(&self) -> i64 {
        self.through
    }

    /// The events after a position, with the keys of their aggregates.
    pub fn after(&self, position: i64) -> &[(i64, Owned)] {
        &self.events[self.events.partition_point(|(_, event)| event.position <= position)..]
    }

    /// Whether it begins no later than after this position, and nothing that it was made of has changed.
    fn serves(&self, after: i64, places: &[Place]) -> bool {
        let reaching = |places: &[Place]| {
            places.iter().filter(|place| place.position > after && start(place) <= self.through).copied().collect()
        };
        let (now, then): (Vec<Place>, Vec<Place>) = (reaching(places), reaching(&self.places));
        self.after <= after && after < self.through && now == then
    }
}

/// An event that may be in the window: its position, which orders it, its segment, its index there, its bytes.
type Candidate = (i64, usize, usize, usize);

impl Known {
    /// The packed events after a position: all of them through [`Window::through`]. A segment that cannot be read ends the
    /// window before its first event, and is `ERR_CORRUPT` where nothing can stand before that.
    pub fn window(&mut self, connection: &Connection, after: i64, page: usize) -> Result<Arc<Window>> {
        let places = places_after(connection, after)?;
        if let Some(window) = self.window.as_ref().filter(|window| window.serves(after, &places)) {
            return Ok(Arc::clone(window));
        }
        let before = self.window.take().filter(|window| window.through == after);
        let most = before.map_or(page.saturating_mul(16), |window| window.most.saturating_mul(WINDOW_GROWTH));
        let most = most.clamp(FIRST_WINDOW, WINDOW_EVENTS);
        let (mut found, mut bytes, mut through) = (BinaryHeap::<Candidate>::new(), 0, i64::MAX);
        for (index, place) in places.iter().enumerate() {
            if start(place) > through {
                break;
            }
            let head = match self.head(connection, place) {
                Ok(head) => head,
                Err(error) => {
                    through = ahead_of(place, after, error)?;
                    break;
                }
            };
            let first = head.positions().partition_point(|position| *position <= after);
            for at in first..head.positions().len() {
                let (position, size) = (head.positions()[at], head.size(at));
                if position > through {
                    break;
                }
                found.push((position, index, at, size));
                bytes += size;
                while found.len() > most || (bytes > WINDOW_BYTES && found.len() > 1) {
                    bytes -= found.pop().map_or(0, |(.., size)| size);
                    through = found.peek().map_or(through, |(last, ..)| *last);
                }
            }
        }
        let mut found = found.into_vec();
        found.retain(|(position, ..)| *position <= through);
        found.sort_unstable_by_key(|(_, place, at, _)| (*place, *at));
        let mut events = Vec::with_capacity(found.len());
        for of_one in found.chunk_by(|one, other| one.1 == other.1) {
            let place = &places[of_one[0].1];
            match self.segment(connection, place) {
                Ok(segment) => {
                    events.extend(of_one.iter().map(|(_, _, at, _)| (place.aggregate, Owned::of(&segment.get(*at)))));
                }
                Err(error) => {
                    through = ahead_of(place, after, error)?;
                    events.retain(|(_, event)| event.position <= through);
                    break;
                }
            }
        }
        events.sort_unstable_by_key(|(_, event)| event.position);
        let window = Arc::new(Window { after, through, most, places, events });
        self.window = (!window.events.is_empty()).then(|| Arc::clone(&window));
        Ok(window)
    }
}

/// Where a segment's first event stands at the earliest, whatever its row says.
fn start(place: &Place) -> i64 {
    place.first.min(place.position)
}

/// How far the window reaches that a segment ends which cannot be read.
fn ahead_of(place: &Place, after: i64, error: Box<Error>) -> Result<i64> {
    let through = start(place).saturating_sub(1);
    if error.is_damage() && through > after { Ok(through) } else { Err(error) }
}

/// The segments that hold events after a position, in the order of their first events. SQLite reads them from an index.
fn places_after(connection: &Connection, after: i64) -> Result<Vec<Place>> {
    let mut statement = connection.cached(
        "SELECT position, first, aggregate, first_seq, seq, generation FROM event_segment WHERE position > ?1",
    )?;
    let mut rows = statement.query([after])?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        places.push(place(row)?);
    }
    places.sort_unstable_by_key(start);
    Ok(places)
}
