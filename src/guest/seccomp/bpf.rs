//! Filter programs (linux/filter.h), put together from whole blocks.
//!
//! A block either ends in a verdict or goes on to what stands after it, and jumps only forward
//! and inside itself, so blocks can be put one after the other.

/// One instruction: struct sock_filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    operand: u32,
}

/// A sequence of instructions.
pub type Block = Vec<Instruction>;

/// Loads a word of `seccomp_data`.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_NOT_LESS: u16 = 0x35;

/// Where `seccomp_data` has what.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A comparison of one argument with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0.
    pub index: u32,
    /// Its bits that count.
    pub mask: u64,
    /// How they are compared.
    pub compare: Compare,
    /// With what, which has no other bits.
    pub value: u64,
    /// True where the comparison is not.
    pub negated: bool,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Is it the value?
    Equal,
    /// Is it more?
    Greater,
    /// Is it the value or more?
    NotLess,
}

impl Instruction {
    /// As [`crate::init::Seccomp`] has it.
    pub fn encode(self) -> u64 {
        u64::from(self.code)
            | u64::from(self.yes) << 16
            | u64::from(self.no) << 24
            | u64::from(self.operand) << 32
    }
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, operand }
}

/// Ends with `action`.
pub fn verdict(action: u32) -> Block {
    vec![plain(RETURN, action)]
}

/// Goes on with the number of the call, for [`search`] and [`if_number`].
pub fn with_number(block: Block) -> Block {
    [vec![plain(LOAD, NUMBER)], block].concat()
}

/// `one` for the convention of that AUDIT_ARCH_…, else `other`. `one` ends in a verdict.
pub fn if_arch(audit: u32, one: Block, other: Block) -> Block {
    [vec![plain(LOAD, ARCH)], choose(IF_EQUAL, audit, one, other)].concat()
}

/// `one` for that number, else `other`. `one` ends in a verdict.
pub fn if_number(number: u32, one: Block, other: Block) -> Block {
    choose(IF_EQUAL, number, one, other)
}

/// `one` from that number on, else `other`. `one` ends in a verdict.
pub fn if_number_from(number: u32, one: Block, other: Block) -> Block {
    choose(IF_NOT_LESS, number, one, other)
}

fn choose(code: u16, operand: u32, one: Block, other: Block) -> Block {
    let jump = match u8::try_from(one.len()) {
        Ok(no) => vec![Instruction { code, yes: 0, no, operand }],
        // A condition jumps over 255 instructions at most, a plain jump over any number.
        Err(_) => {
            let length = u32::try_from(one.len()).unwrap_or(u32::MAX);
            vec![Instruction { code, yes: 1, no: 0, operand }, plain(JUMP, length)]
        }
    };
    [jump, one, other].concat()
}

/// The block of the range that the call's number is in, found by halving. Ranges begin at the
/// numbers given, in order; the first one's is not looked at. Each block ends in a verdict.
pub fn search(ranges: &[(u32, Block)]) -> Block {
    match ranges {
        [] => Block::new(),
        [(_, block)] => block.clone(),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let start = high.first().map_or(0, |(start, _)| *start);
            if_number_from(start, search(high), search(low))
        }
    }
}

/// Where a jump inside a rule goes.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    Next,
    /// The next condition: this one holds.
    Holds,
    /// Behind the rule: this one does not.
    Fails,
}

struct Step {
    instruction: Instruction,
    yes: To,
    no: To,
}

/// `action` if all conditions hold, else goes on. The arguments have 64 bits or, not `wide`, 32.
pub fn rule(conditions: &[Condition], action: u32, wide: bool) -> Block {
    let mut tests = Vec::new();
    for condition in conditions {
        match if wide { condition.wide() } else { condition.narrow() } {
            Test::Always => {}
            Test::Never => return Block::new(),
            Test::Steps(steps) => tests.push(steps),
        }
    }
    // One argument has one condition, so this is never more than a jump can skip.
    let skip = |from: usize, to: usize| u8::try_from(to - from - 1).unwrap_or(u8::MAX);
    let behind = tests.iter().map(Vec::len).sum::<usize>() + 1;
    let mut block = Block::new();
    for steps in tests {
        let end = block.len() + steps.len();
        for Step { instruction, yes, no } in steps {
            let here = block.len();
            let far = |to| match to {
                To::Next => 0,
                To::Holds => skip(here, end),
                To::Fails => skip(here, behind),
            };
            block.push(Instruction { yes: far(yes), no: far(no), ..instruction });
        }
    }
    block.push(plain(RETURN, action));
    block
}

enum Test {
    Always,
    Never,
    Steps(Vec<Step>),
}

impl Condition {
    /// The words of 64 bits are compared one after the other, the upper one first.
    fn wide(&self) -> Test {
        let (holds, fails) = self.ends();
        let mut steps = self.load(true);
        let (upper, lower) = (upper(self.value), lower(self.value));
        let jump = |code, operand, yes, no| Step { instruction: plain(code, operand), yes, no };
        if self.compare != Compare::Equal {
            steps.push(jump(IF_GREATER, upper, holds, To::Next));
        }
        steps.push(jump(IF_EQUAL, upper, To::Next, fails));
        steps.extend(self.load(false));
        steps.push(jump(self.compare.code(), lower, holds, fails));
        Test::Steps(steps)
    }

    /// A negative number is written with 64 bits in a profile that is for 64-bit programs too.
    fn narrow(&self) -> Test {
        if !matches!(upper(self.value), 0 | u32::MAX) {
            // More than any argument can be.
            return if self.negated { Test::Always } else { Test::Never };
        }
        let (yes, no) = self.ends();
        let mut steps = self.load(false);
        let instruction = plain(self.compare.code(), lower(self.value));
        steps.push(Step { instruction, yes, no });
        Test::Steps(steps)
    }

    /// Where to go if the comparison is true, and if it is false.
    fn ends(&self) -> (To, To) {
        if self.negated { (To::Fails, To::Holds) } else { (To::Holds, To::Fails) }
    }

    /// The argument's upper or lower word, with the bits that count.
    fn load(&self, top: bool) -> Vec<Step> {
        let next =
            |code, operand| Step { instruction: plain(code, operand), yes: To::Next, no: To::Next };
        // Little-endian, as all kernels are that this program is for.
        let mut steps = vec![next(LOAD, ARGUMENTS + 8 * self.index + 4 * u32::from(top))];
        let mask = if top { upper(self.mask) } else { lower(self.mask) };
        if mask != u32::MAX {
            steps.push(next(AND, mask));
        }
        steps
    }
}

impl Compare {
    fn code(self) -> u16 {
        match self {
            Self::Equal => IF_EQUAL,
            Self::Greater => IF_GREATER,
            Self::NotLess => IF_NOT_LESS,
        }
    }
}

fn upper(value: u64) -> u32 {
    u32::try_from(value >> 32).unwrap_or_default()
}

fn lower(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}
