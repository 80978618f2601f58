//! Partitions, and tables that inherit, that came after the first look. What an UPDATE of the whole would do, the job does too:
//! before its end it looks for them, again and again until there are none. Under `Lock::Council`.
//!
//! Rows of such a partition may have been moved there from one that was done before. So they are done only where that does no
//! harm: where nothing is changed, where set_clause gives the same the second time, or where the walk in physical order shows
//! of each row that it does not match where_clause any more once it is done. Else they are left, and `require_completed` says
//! no until somebody has seen to them.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::guc;
use crate::model::names;
use crate::pg::partition::{self, Leaf};
use crate::pg::{heap, relation, repeat, server};
use crate::store::job::Job;
use crate::store::{event, left_out, slice, walk};
use crate::worker::batch::attributes;
use crate::worker::cut_slices;

/// The partitions that are not walked, and are not known to be left out.
fn found(job: &Job) -> Result<Vec<Leaf>> {
    // One that does single rows again is about no others, nor is one that had completed before.
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

/// Their tables, which can be locked before there is a snapshot.
pub fn tables(job: &Job) -> Result<Vec<Oid>> {
    let walked_by_us = |leaf: &Leaf| leaf.kind == 'r';
    let leaves = found(job)?.into_iter().filter(walked_by_us);
    Ok(leaves.map(|leaf| leaf.oid).collect())
}

/// Whether there are any that were not looked at.
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

/// Cuts those that can be done into slices; true if there are any. Of the others it is recorded that they are not done. `locked`
/// are the tables that the transaction has locked already: one that came since then has to wait for the next look, as nobody
/// is to wait for its lock here. Those without a page have no rows, and are no matter.
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

/// Whether the table may be walked: a row of it that was done elsewhere can be done once more without harm.
fn may_be_done_again(job: &Job, table: Oid) -> Result<bool> {
    if job.definition.action.is_read_only() {
        return Ok(true);
    }
    let Some(found) = relation::describe(table)? else {
        return Ok(false);
    };
    let strangers = partition::author_without_superuser(table)?.is_some();
    if strangers && server::is_superuser() && !guc::SUPERUSER_JOBS.get() {
        // As for `start`: its triggers would run as the superuser.
        return Ok(false);
    }
    let known_as = attributes::known_as(job, table)?;
    if repeat::why_not(
        &found,
        known_as.as_deref(),
        &job.definition.action.update().set_clause,
    )?
    .is_none()
    {
        return Ok(true);
    }
    cut_slices::goes_by_pages(job, table)
}

/// Says that a job is about its table alone, where others inherit from it and have rows that nobody has done.
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

/// Says which tables are partitions no longer.
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
