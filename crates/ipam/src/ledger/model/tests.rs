//! How far each search goes: no rule is missing, and none is idle.

use stateright::{Checker, HasDiscoveries, Model};

use super::addresses::Families;
use super::{Begin, Writers};
use crate::ledger::transaction::{Rule, Rules};

/// Returns the first violated property, if any.
fn violation(model: Writers) -> Option<&'static str> {
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    println!("{} states", checker.unique_state_count());
    checker
        .discoveries()
        .into_iter()
        .next()
        .map(|(name, path)| {
            println!("{name}: {:#?}", path.into_actions());
            name
        })
}

fn writers(begin: Begin, addresses: u8, parallel: usize, operations: u8, edits: u8) -> Writers {
    Writers {
        parallel,
        services: 2,
        addresses,
        operations,
        edits,
        rules: Rules::ALL,
        begin,
        sharing: false,
        sticky: false,
        families: Families::One,
        clings: false,
    }
}

/// Three Services that ask for one address by name, two of which do not agree.
fn sharers(begin: Begin, parallel: usize, operations: u8, edits: u8) -> Writers {
    Writers {
        services: 3,
        sharing: true,
        ..writers(begin, 1, parallel, operations, edits)
    }
}

#[test]
fn three_writers_and_a_user_never_give_one_address_twice() {
    assert_eq!(violation(writers(Begin::Empty, 1, 3, 3, 1)), None);
}

#[test]
fn two_writers_and_two_edits_never_give_one_address_twice() {
    assert_eq!(violation(writers(Begin::Empty, 1, 2, 2, 2)), None);
}

#[test]
fn what_is_served_stays_with_one_whatever_two_edits_do() {
    assert_eq!(violation(writers(Begin::Served, 1, 2, 2, 2)), None);
}

#[test]
fn with_room_to_move_nothing_moves() {
    assert_eq!(violation(writers(Begin::Empty, 2, 2, 2, 1)), None);
    assert_eq!(violation(writers(Begin::Leftover, 2, 2, 2, 1)), None);
    assert_eq!(violation(writers(Begin::Unremembered, 2, 2, 2, 0)), None);
}

#[test]
fn an_address_that_another_controller_gave_is_adopted_unless_it_was_given_away() {
    assert_eq!(violation(writers(Begin::Found, 1, 2, 2, 1)), None);
    assert_eq!(violation(writers(Begin::Found, 2, 2, 3, 0)), None);
}

#[test]
fn an_address_is_shared_by_those_who_agree_and_by_nobody_else() {
    assert_eq!(violation(sharers(Begin::Empty, 3, 3, 0)), None);
    assert_eq!(violation(sharers(Begin::Empty, 2, 2, 1)), None);
}

#[test]
fn what_was_found_shared_stays_so_and_nobody_joins_who_does_not_agree() {
    assert_eq!(violation(sharers(Begin::FoundTogether, 2, 3, 0)), None);
    assert_eq!(violation(sharers(Begin::FoundTogether, 2, 2, 1)), None);
}

#[test]
fn what_is_kept_for_one_that_is_gone_is_given_once_too() {
    let mut model = writers(Begin::Served, 1, 2, 2, 2);
    model.sticky = true;
    assert_eq!(violation(model), None);
}

/// Two Services: one asks for both families, the other for the second, of which there is as much as of the first.
fn dual(all: bool, addresses: u8, parallel: usize, operations: u8, edits: u8) -> Writers {
    Writers {
        families: Families::Two { all },
        ..writers(Begin::Empty, addresses, parallel, operations, edits)
    }
}

#[test]
fn of_two_families_what_there_is_of_them_is_given_once_and_stays() {
    assert_eq!(violation(dual(false, 2, 2, 3, 0)), None);
    assert_eq!(violation(dual(false, 2, 2, 2, 1)), None);
    assert_eq!(violation(dual(false, 3, 3, 3, 0)), None);
}

#[test]
fn who_needs_both_families_holds_both_or_none() {
    assert_eq!(violation(dual(true, 2, 3, 3, 0)), None);
    assert_eq!(violation(dual(true, 2, 2, 2, 1)), None);
}

#[test]
fn what_is_served_of_two_families_stays() {
    for (all, parallel) in [(true, 2), (false, 1)] {
        let mut model = dual(all, 2, parallel, 2, 1);
        model.begin = Begin::Served;
        assert_eq!(violation(model), None);
    }
}

/// Without the rule, the same search finds a state that must not be.
fn is_needed(rule: Rule, mut model: Writers) {
    model.rules.without = Some(rule);
    assert!(violation(model).is_some());
}

#[test]
fn a_writer_must_raise_a_record_that_is_his() {
    is_needed(Rule::Raise, writers(Begin::Served, 1, 2, 2, 2));
}

#[test]
fn what_is_given_back_must_be_fenced() {
    is_needed(Rule::Fence, writers(Begin::Unremembered, 2, 2, 2, 0));
}

#[test]
fn a_record_must_be_deleted_at_the_version_read() {
    is_needed(Rule::DeleteAtVersion, writers(Begin::Served, 1, 2, 2, 2));
}

#[test]
fn a_status_must_be_written_at_the_version_read() {
    is_needed(Rule::PublishAtVersion, writers(Begin::Empty, 1, 2, 2, 1));
    // It is also what lets an address stand that is shown already, when another is added to it.
    is_needed(Rule::PublishAtVersion, dual(false, 2, 2, 2, 1));
}

#[test]
fn what_is_given_back_must_be_read_before_the_fence() {
    is_needed(Rule::ReadBeforeFence, writers(Begin::Served, 1, 2, 2, 2));
}

#[test]
fn a_service_believed_gone_must_be_looked_for() {
    is_needed(Rule::ConfirmGone, writers(Begin::Empty, 1, 1, 2, 2));
}

#[test]
fn a_service_that_takes_a_record_over_must_be_looked_for() {
    is_needed(Rule::ConfirmCurrent, writers(Begin::Empty, 1, 1, 3, 2));
}

#[test]
fn who_joins_must_agree() {
    is_needed(Rule::Agree, sharers(Begin::Empty, 2, 2, 0));
    is_needed(Rule::Agree, writers(Begin::Found, 1, 2, 2, 0));
}

#[test]
fn who_cannot_have_both_families_must_give_the_one_back() {
    let mut model = dual(true, 2, 1, 2, 0);
    model.clings = true;
    assert_eq!(
        violation(model),
        Some("what goes quiet is served and accounted for")
    );
}
