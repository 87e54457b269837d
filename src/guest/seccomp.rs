//! runtime-spec's `linux.seccomp` as a filter program for the kernel.
//!
//! LXC's own format cannot express all of it, so the init installs the program itself. What
//! runtime-spec leaves open is done as profiles in use expect it, that is as libseccomp and runc
//! do:
//!
//! - Names that no kernel of this kind knows are passed over: profiles are written for all kinds.
//! - The kernel's own calling convention is always filtered, listed or not. A process that uses
//!   one that is not listed is killed.
//! - Two conditions on the same argument are alternatives; on different ones, all must hold.
//! - Calls newer than the newest that a profile names fail with ENOSYS where the profile's default
//!   is to fail with some error. C libraries try new calls first and fall back on ENOSYS alone.
//! - What `socketcall` and `ipc` of 32-bit x86 do under one number is told apart.
//!
//! Where several rules are for the same call, the strictest counts, as among several filters
//! (seccomp(2)). libseccomp is never stricter than that.

mod abi;
mod bpf;
mod profile;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::init;
use abi::{Abi, Call, Machine};
use bpf::{Block, Compare, Condition};
use profile::{Profile, Rule};
use serde_json::Value;
use std::collections::BTreeMap;

const ENOSYS: u32 = libc::ENOSYS.unsigned_abs();
const EPERM: u32 = libc::EPERM.unsigned_abs();

/// Where all of this is in config.json.
const POINTER: &str = "/linux/seccomp";

/// BPF_MAXINSNS.
const LONGEST: usize = 4096;

/// From here on a call has the same number in all tables (Linux 5.1).
const FIRST_COMMON: u32 = 424;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// The part of an action that says what is done; the rest is its data.
const ACTION: u32 = 0xffff_0000;

/// The program for `linux.seccomp` of config.json; `None` where there is to be none.
///
/// # Errors
/// `InvalidArgument` with the JSON pointer of what is wrong, `Unimplemented` for notifications,
/// which need somebody to answer them.
pub fn compile(seccomp: &Value) -> Result<Option<init::Seccomp>> {
    compile_for(abi::NATIVE, seccomp)
}

/// Whether any kernel that is known here has a system call of that name.
pub(crate) fn knows(name: &str) -> bool {
    let all = [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm];
    all.into_iter().any(|abi| !abi.calls(name).is_empty())
}

fn compile_for(machine: Machine, seccomp: &Value) -> Result<Option<init::Seccomp>> {
    let Some(profile) = Profile::parse(machine, seccomp)? else { return Ok(None) };
    let program = profile.program(machine);
    if program.len() > LONGEST {
        return Err(Error::invalid(format!(
            "{POINTER}/syscalls: the filter needs {} instructions, of which the kernel takes \
             {LONGEST}; use fewer conditions on arguments, or fewer architectures",
            program.len()
        )));
    }
    let program = program.into_iter().map(bpf::Instruction::encode).collect();
    Ok(Some(init::Seccomp { flags: profile.flags, program }))
}

impl Profile<'_> {
    fn program(&self, machine: Machine) -> Block {
        let unlisted = || bpf::verdict(KILL_THREAD);
        let table = |abi: Abi| {
            let table = bpf::search(&self.ranges(abi));
            let filtered = |other: &Abi| self.abis.contains(other);
            bpf::with_number(match (abi, filtered(&Abi::X32)) {
                (Abi::X86_64, true) => {
                    bpf::if_number_from(abi::X32_BIT, bpf::search(&self.ranges(Abi::X32)), table)
                }
                // A tracer makes the number -1 to have no call made.
                (Abi::X86_64, false) => bpf::if_number_from(
                    abi::X32_BIT,
                    bpf::if_number(u32::MAX, bpf::verdict(self.default), unlisted()),
                    table,
                ),
                _ => table,
            })
        };
        machine
            .iter()
            .rev()
            .filter(|abi| self.abis.contains(abi) && **abi != Abi::X32)
            .fold(unlisted(), |other, abi| bpf::if_arch(abi.audit(), table(*abi), other))
    }

    /// What happens to which numbers, from 0 on.
    fn ranges(&self, abi: Abi) -> Vec<(u32, Block)> {
        let default = bpf::verdict(self.default);
        let calls = self.calls(abi);
        let mut starts = BTreeMap::from([(0, default.clone())]);
        for (&number, rules) in &calls {
            starts.insert(number, self.block(rules, abi));
            starts.insert(number + 1, default.clone());
        }
        let end = if abi == Abi::Arm { abi::ARM_PRIVATE } else { abi::X32_BIT };
        // Nobody has made a new call for x32 in years, and its own ones have the highest numbers.
        if self.default & ACTION == ERRNO && abi != Abi::X32 {
            let named = calls.range(..end).next_back().map_or(0, |(&number, _)| number);
            starts.insert(FIRST_COMMON.max(named + 1), bpf::verdict(ERRNO | ENOSYS));
            starts.entry(end).or_insert(default);
        }
        let mut ranges: Vec<(u32, Block)> = starts.into_iter().collect();
        ranges.dedup_by(|next, kept| next.1 == kept.1);
        ranges
    }

    /// What is done for one number.
    fn block(&self, rules: &[(Vec<Condition>, u32)], abi: Abi) -> Block {
        let mut rules: Vec<_> = rules.iter().collect();
        rules.sort_by_key(|(_, action)| strictness(*action));
        let mut block = Block::new();
        for (conditions, action) in rules {
            block.extend(bpf::rule(conditions, *action, abi.is_wide()));
            if conditions.is_empty() {
                return block;
            }
        }
        block.extend(bpf::verdict(self.default));
        block
    }

    /// The rules for each number, in the order of config.json.
    fn calls(&self, abi: Abi) -> BTreeMap<u32, Vec<(Vec<Condition>, u32)>> {
        let mut calls = BTreeMap::<_, Vec<_>>::new();
        for Rule { names, action, alternatives } in &self.rules {
            let stricter = strictness(*action) < strictness(self.default);
            for Call { number, inner } in names.iter().flat_map(|name| abi.calls(name)) {
                let rules = calls.entry(number).or_default();
                for conditions in alternatives {
                    match inner {
                        None => rules.push((conditions.clone(), *action)),
                        // Arguments that cannot be seen may be any: nothing is allowed for their
                        // sake, and everything is forbidden.
                        Some(inner) if conditions.is_empty() || stricter => {
                            rules.push((vec![Condition::inner(inner)], *action));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        calls
    }
}

/// Actions by how little they let through; the kernel compares them in the same way.
fn strictness(action: u32) -> i32 {
    (action & ACTION).cast_signed()
}

impl Condition {
    /// Which of the calls of a number it is. The upper half is the version of an old interface.
    fn inner(call: u32) -> Self {
        Self { index: 0, mask: 0xffff, compare: Compare::Equal, value: call.into(), negated: false }
    }
}
