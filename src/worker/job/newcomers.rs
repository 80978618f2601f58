//! Partitions, and tables that inherit, that were added after the first look. The job does them, as an UPDATE of the
//! whole would: before its end it looks for them, again and again until there are none. Under `Lock::Council`.
//!
//! Rows of such a partition may have been moved there from one that was done before. So they are done only where that
//! is harmless: where nothing is changed, where set_clause gives the same result the second time, or where the walk in
//! physical order shows for each row that it no longer matches where_clause once it is done. Otherwise they are left,
//! and `require_completed` fails until somebody has dealt with them.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::guc;
use crate::model::fate::Fate;
use crate::model::names;
use crate::pg::partition::{self, Leaf};
use crate::pg::{heap, relation, repeat, server};
use crate::store::job::Job;
use crate::store::{event, left_out, slice, walk};
use crate::worker::batch::attributes;
use crate::worker::cut_slices;

/// Returns the partitions that are not walked, including those known to be left out.
fn found(job: &Job) -> Result<Vec<Leaf>> {
    // A job that does single rows again is about no others; one that had completed before takes up no newcomers either.
    if walk::pass(job.id)?.is_none()
        || slice::are_single_rows(job.id)?
        || event::is_recorded(job.id, "completed")?
    {
        return Ok(Vec::new());
    }
    let walked = walk::tables(job.id)?;
    let mut leaves = partition::leaves(job.relation, job.definition.options.only())?;
    leaves.retain(|leaf| !walked.contains(&leaf.oid));
    Ok(leaves)
}

/// Returns the tables among the newcomers, so that they can be locked before there is a snapshot.
pub fn tables(job: &Job) -> Result<Vec<Oid>> {
    let walked_by_us = |leaf: &Leaf| leaf.kind == 'r';
    let leaves = found(job)?.into_iter().filter(walked_by_us);
    Ok(leaves.map(|leaf| leaf.oid).collect())
}

/// True if there are newcomers that were not looked at.
pub fn are_there(job: &Job) -> Result<bool> {
    let known = left_out::all(job.id)?;
    let mut unknown = found(job)?;
    unknown.retain(|leaf| !known.contains(&leaf.oid));
    for leaf in unknown {
        if leaf.kind != 'r' || !is_empty(leaf.oid)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Cuts the newcomers that can be done into slices, and records the others as left out. Returns true if the job has
/// slices to do. `locked` are the tables that the transaction has locked already: a table that came since then has to
/// wait for the next look, since this must not wait for its lock. Tables without a page have no rows and are ignored.
pub fn take_up(job: &Job, locked: &[Oid]) -> Result<bool> {
    let mut added = Vec::new();
    for leaf in found(job)? {
        let shown = leaf.shown;
        if leaf.kind == 'r' && (!locked.contains(&leaf.oid) || is_empty(leaf.oid)?) {
            continue;
        }
        if leaf.kind == 'r' && may_be_done_again(job, leaf.oid)? {
            walk::add_note(job.id, &came(job, &shown)?)?;
            added.push((leaf.oid, shown));
        } else {
            left_out::add(job.id, leaf.oid)?;
            let came = came(job, &shown)?;
            walk::add_note(job.id, &format!("{came}: its rows are not done"))?;
        }
    }
    cut_slices::add(job, walk::pass(job.id)?.unwrap_or(1), &added)?;
    Ok(slice::left(job.id)? > 0)
}

fn is_empty(table: Oid) -> Result<bool> {
    Ok(heap::pages(table)?.is_none_or(|(pages, _)| pages == 0))
}

fn came(job: &Job, shown: &str) -> Result<String> {
    let partitioned = relation::describe(job.relation)?.is_some_and(|r| r.kind == 'p');
    let what = if partitioned { "partition" } else { "table" };
    Ok(format!("{what} {shown} came during the run"))
}

/// True if the table may be walked: a row of it that was done elsewhere can be done once more without harm.
fn may_be_done_again(job: &Job, table: Oid) -> Result<bool> {
    if job.definition.action.is_read_only() {
        return Ok(true);
    }
    let Some(found) = relation::describe(table)? else {
        return Ok(false);
    };
    let strangers = partition::author_without_superuser(table)?.is_some();
    if strangers && server::is_superuser() && !guc::SUPERUSER_JOBS.get() {
        // As in `start`: triggers of others would run as the superuser.
        return Ok(false);
    }
    if job.definition.action.as_action().fate() == Fate::Kept {
        // A row that came along with the table may have been done where it was before.
        return Ok(false);
    }
    let known_as = attributes::known_as(job, table)?;
    let Some(set_clause) = job.definition.action.set_list() else {
        // A row is deleted once at most.
        return Ok(true);
    };
    if repeat::why_not(&found, known_as.as_deref(), &set_clause)?.is_none() {
        return Ok(true);
    }
    cut_slices::goes_by_pages(job, table)
}

/// Notes that a job is about its table alone, where tables that inherit from it have rows that no job has done.
pub fn note_alone(job: &Job) -> Result<()> {
    if !job.definition.options.only() {
        return Ok(());
    }
    let left = left_out::below(job)?;
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = left.iter().map(|table| table.shown.as_str()).collect();
    let reads = job.definition.action.is_read_only();
    let what = if reads { "looked at" } else { "done" };
    let note = format!(
        "of {} alone (option only): rows of {} are not {what}",
        job.relation_name,
        names::listed(&names)
    );
    walk::add_note(job.id, &note)
}

/// Notes which tables are no longer partitions.
pub fn note_detached(job: &Job) -> Result<()> {
    let leaves = partition::leaves(job.relation, false)?;
    for table in walk::tables(job.id)? {
        if let Some(gone) = relation::describe(table)?
            && !leaves.iter().any(|leaf| leaf.oid == table)
        {
            let note = format!(
                "{} was detached during the run: its rows are done all the same",
                gone.shown
            );
            walk::add_note(job.id, &note)?;
        }
    }
    Ok(())
}
