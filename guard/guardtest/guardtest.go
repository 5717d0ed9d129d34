// Package guardtest is the conformance suite that every guard.Store passes.
package guardtest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// Harness gives the suite a store and its clock.
type Harness struct {
	Store guard.Store
	// Advance moves the store's clock on.
	Advance func(time.Duration)
	// As has another node, 1 to 255, ask from now on; nil where there is only one.
	As func(node uint8)
	// Size returns how many guards and marks the store holds under a user,
	// whether or not List shows them.
	Size func(user string) int
}

// Run runs every test of the contract against stores made by run, which calls
// its argument once with a fresh, empty store.
func Run(t *testing.T, run func(t *testing.T, test func(*testing.T, Harness))) {
	runAll(t, run, []test{
		{"CreatesAGuard", (*suite).createsAGuard},
		{"RepeatedAcquireChangesOnlyTimes", (*suite).repeatedAcquireChangesOnlyTimes},
		{"RefreshExtendsBothTimes", (*suite).refreshExtendsBothTimes},
		{"TimesNeverGoBack", (*suite).timesNeverGoBack},
		{"RefreshNeverCreates", (*suite).refreshNeverCreates},
		{"LapsedGuardKeepsItsSlotUntilTTL", (*suite).lapsedGuardKeepsItsSlotUntilTTL},
		{"LapsedGuardIsRefreshable", (*suite).lapsedGuardIsRefreshable},
		{"ReclaimLapsedTakesTheLongestLapsed", (*suite).reclaimLapsedTakesTheLongestLapsed},
		{"ReclaimLapsedNeverExceedsALoweredLimit", (*suite).reclaimLapsedNeverExceedsALoweredLimit},
		{"LimitRefusesTheOneTooMany", (*suite).limitRefusesTheOneTooMany},
		{"LimitOfZeroRefusesEverybody", (*suite).limitOfZeroRefusesEverybody},
		{"RefusalShowsTheOldestSixteenAndCountsAll", (*suite).refusalShowsTheOldestSixteenAndCountsAll},
		{"ObservedBeyondTheBoundPassUncounted", (*suite).observedBeyondTheBoundPassUncounted},
		{"UnlimitedBeyondTheBoundPassUncounted", (*suite).unlimitedBeyondTheBoundPassUncounted},
		{"NoLimitIsHigherThanMaxLimit", (*suite).noLimitIsHigherThanMaxLimit},
		{"AllOfAThousandAreReplacedAtOnce", (*suite).allOfAThousandAreReplacedAtOnce},
		{"LoweredLimitKeepsTheAdmitted", (*suite).loweredLimitKeepsTheAdmitted},
		{"ParallelAcquiresAdmitExactlyTheLimit", (*suite).parallelAcquiresAdmitExactlyTheLimit},
		{"ReleaseFreesTheSlotAtOnce", (*suite).releaseFreesTheSlotAtOnce},
		{"ReleaseIsNotUndoneByARacingRefresh", (*suite).releaseIsNotUndoneByARacingRefresh},
		{"StragglersOfAReleasePassWithoutASlot", (*suite).stragglersOfAReleasePassWithoutASlot},
		{"StragglersPassNoLongerThanThePlaybackLived", (*suite).stragglersPassNoLongerThanThePlaybackLived},
		{"PlaybackThatCameBackHasNoStragglers", (*suite).playbackThatCameBackHasNoStragglers},
		{"GivingTheSlotBackDoesNotVoidTheLimit", (*suite).givingTheSlotBackDoesNotVoidTheLimit},
		{"MarksLiveForTheLongerTTL", (*suite).marksLiveForTheLongerTTL},
		{"RevokedPlaybackCannotCarryOn", (*suite).revokedPlaybackCannotCarryOn},
		{"MovesToANewStreamInItsSlot", (*suite).movesToANewStreamInItsSlot},
		{"ClaimChangesTheLabelsItHas", (*suite).claimChangesTheLabelsItHas},
		{"LookNeverCreates", (*suite).lookNeverCreates},
		{"ResumeRestoresALostGuardPastTheLimit", (*suite).resumeRestoresALostGuardPastTheLimit},
		{"RulesMustAllAllow", (*suite).rulesMustAllAllow},
		{"RuleHoldsForAMove", (*suite).ruleHoldsForAMove},
		{"RuleIgnoresWhatIsNotKnown", (*suite).ruleIgnoresWhatIsNotKnown},
		{"StartReplacesTheOldest", (*suite).startReplacesTheOldest},
		{"StartReplacesOnItsDeviceOnly", (*suite).startReplacesOnItsDeviceOnly},
		{"RuleThatReplacesMakesRoomUnderTheLimit", (*suite).ruleThatReplacesMakesRoomUnderTheLimit},
		{"NothingIsReplacedForARefusal", (*suite).nothingIsReplacedForARefusal},
		{"ListIsOldestFirst", (*suite).listIsOldestFirst},
		{"ForeignIDTouchesNobody", (*suite).foreignIDTouchesNobody},
		{"AnyBytesAreJustAName", (*suite).anyBytesAreJustAName},
		{"MarksAreBounded", (*suite).marksAreBounded},
		{"ResumeIsJudgedByTheLimitOnceAnEndWasForgotten", (*suite).resumeIsJudgedByTheLimitOnceAnEndWasForgotten},
		{"NothingIsLeftAfterTTL", (*suite).nothingIsLeftAfterTTL},
		{"LookReplacesNobody", (*suite).lookReplacesNobody},
		{"WhoHasGoneTakesNothing", (*suite).whoHasGoneTakesNothing},
		{"LookThatMovesReplacesNobody", (*suite).lookThatMovesReplacesNobody},
		{"ReplacedPlaybackCannotCarryOn", (*suite).replacedPlaybackCannotCarryOn},
		{"AnotherClientThrowsOutWhoIsWatching", (*suite).anotherClientThrowsOutWhoIsWatching},
		{"AfterManyReleasesStragglersPassForAMoment", (*suite).afterManyReleasesStragglersPassForAMoment},
		{"WhoStartsAnewMay", (*suite).whoStartsAnewMay},
		{"ReloadTakesBackOnlyWhatNobodyWatched", (*suite).reloadTakesBackOnlyWhatNobodyWatched},
		{"StartingAnewIsNoLeaveToResume", (*suite).startingAnewIsNoLeaveToResume},
		{"ReplacementStandsWhileItRefuses", (*suite).replacementStandsWhileItRefuses},
		{"ZappingIsFree", (*suite).zappingIsFree},
		{"ZappingDoesNotBringTheReplacedBack", (*suite).zappingDoesNotBringTheReplacedBack},
		{"ObservingRefusesNobodyForAReplacement", (*suite).observingRefusesNobodyForAReplacement},
		{"GoingBackIsFree", (*suite).goingBackIsFree},
		{"TwoThatThrowEachOtherOutSettle", (*suite).twoThatThrowEachOtherOutSettle},
		{"ReturnsCountFromARefusalOn", (*suite).returnsCountFromARefusalOn},
		{"LimitPerClient", (*suite).limitPerClient},
		{"NamelessKeepAliveWhatNeverNamedItself", (*suite).namelessKeepAliveWhatNeverNamedItself},
		{"LongAnswerIsItsPathsAlone", (*suite).longAnswerIsItsPathsAlone},
		{"LongAnswerThatIsRefusedHasItsName", (*suite).longAnswerThatIsRefusedHasItsName},
		{"ShortAnswerIsItsClientsAgain", (*suite).shortAnswerIsItsClientsAgain},
		{"LongAnswerTakesNoNamedGuard", (*suite).longAnswerTakesNoNamedGuard},
		{"NamelessLookIsServedToo", (*suite).namelessLookIsServedToo},
		{"NamelessStayOnTheirStreamAndDevice", (*suite).namelessStayOnTheirStreamAndDevice},
		{"NamelessGuardsAreTheirClients", (*suite).namelessGuardsAreTheirClients},
		{"WhatIsNotKnownIsFilledIn", (*suite).whatIsNotKnownIsFilledIn},
		{"FillingInNeedsRoom", (*suite).fillingInNeedsRoom},
		{"ReservationServesOneTitle", (*suite).reservationServesOneTitle},
		{"WhatEndsEndsForNamelessToo", (*suite).whatEndsEndsForNamelessToo},
		{"NamelessGoOnWithWhatStartedAnew", (*suite).namelessGoOnWithWhatStartedAnew},
		{"NamelessStragglersPass", (*suite).namelessStragglersPass},
		{"GivingAReservationBackLetsNoNamelessPass", (*suite).givingAReservationBackLetsNoNamelessPass},
		{"LostGuardComesBackUnderItsOwnID", (*suite).lostGuardComesBackUnderItsOwnID},
		{"NamelessBringNothingElseBack", (*suite).namelessBringNothingElseBack},
		{"AGuardKeepsItsStreamWhereToldTo", (*suite).aGuardKeepsItsStreamWhereToldTo},
		{"DoubtInVainTakesTheSlot", (*suite).doubtInVainTakesTheSlot},
		{"DoubtThatIsAnsweredTakesNothing", (*suite).doubtThatIsAnsweredTakesNothing},
		{"OnlyTheSameClientAndStreamAreDoubted", (*suite).onlyTheSameClientAndStreamAreDoubted},
		{"WhereThereIsRoomNobodyIsDoubted", (*suite).whereThereIsRoomNobodyIsDoubted},
		{"SeveralAreDoubtedAtOnce", (*suite).severalAreDoubtedAtOnce},
		{"NobodyWaitsInVain", (*suite).nobodyWaitsInVain},
		{"ARuleDoubtsWhatItCounts", (*suite).aRuleDoubtsWhatItCounts},
		{"ADoubtedGuardMayBeReleased", (*suite).aDoubtedGuardMayBeReleased},
		{"ADoubtOutlivesWhoDoubted", (*suite).aDoubtOutlivesWhoDoubted},
		{"TwinsCostNobodyHisFilm", (*suite).twinsCostNobodyHisFilm},
		{"FiveEqualClientsOfThree", (*suite).fiveEqualClientsOfThree},
		{"PagesThatAreLoadedAgainPlay", (*suite).pagesThatAreLoadedAgainPlay},
		{"UndoLeavesNothing", (*suite).undoLeavesNothing},
		{"UndoLetsTheReplacedGoOn", (*suite).undoLetsTheReplacedGoOn},
		{"UndoLiftsNoOtherEnd", (*suite).undoLiftsNoOtherEnd},
		{"UndoIsOfTheFirstRequestOnly", (*suite).undoIsOfTheFirstRequestOnly},
		{"UndoForgetsNoMark", (*suite).undoForgetsNoMark},
		{"ClosedGuardKeepsItsSlotUntilTTL", (*suite).closedGuardKeepsItsSlotUntilTTL},
		{"ClosedFirstGoesFirst", (*suite).closedFirstGoesFirst},
		{"WhereThereIsRoomNothingIsTaken", (*suite).whereThereIsRoomNothingIsTaken},
		{"WhoIsBackBeforeAnybodyHasItBack", (*suite).whoIsBackBeforeAnybodyHasItBack},
		{"WhoIsBackLaterMayWhereThereIsRoom", (*suite).whoIsBackLaterMayWhereThereIsRoom},
		{"TakingIsNoFight", (*suite).takingIsNoFight},
		{"TakenWhereTheLimitReplaces", (*suite).takenWhereTheLimitReplaces},
		{"WhoCarriesOnThrowsNobodyOut", (*suite).whoCarriesOnThrowsNobodyOut},
		{"ClosedLapsedDoubtedReplaced", (*suite).closedLapsedDoubtedReplaced},
		{"ALookTakesNothing", (*suite).aLookTakesNothing},
		{"ALookThatMovesTakesNothing", (*suite).aLookThatMovesTakesNothing},
		{"AGuardIsClosedAtOnce", (*suite).aGuardIsClosedAtOnce},
		{"ClosingIsNoEnd", (*suite).closingIsNoEnd},
		{"ClosingEndsADoubt", (*suite).closingEndsADoubt},
		{"ObservingTakesNothing", (*suite).observingTakesNothing},
		{"NamelessAndClosed", (*suite).namelessAndClosed},
		{"UndoOfATaking", (*suite).undoOfATaking},
		{"SevenFilmsInTurn", (*suite).sevenFilmsInTurn},
		{"WalkMeetsEverybodyWhoHoldsGuards", (*suite).walkMeetsEverybodyWhoHoldsGuards},
	})
}

// RunShared runs what else there is to test of a store that several nodes share, and
// whose clock may go back.
func RunShared(t *testing.T, run func(t *testing.T, test func(*testing.T, Harness))) {
	runAll(t, run, []test{
		{"WhatTwoNodesServeIsNotClosed", (*suite).whatTwoNodesServeIsNotClosed},
		{"ClosedWhileTheClockGoesBack", (*suite).closedWhileTheClockGoesBack},
	})
}

type test struct {
	name string
	test func(*suite)
}

func runAll(t *testing.T, run func(t *testing.T, test func(*testing.T, Harness)), tests []test) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, h Harness) { c.test(&suite{t, h}) })
		})
	}
}

var policy = guard.Policy{Limit: 3, Interval: 60 * time.Second, TTL: 90 * time.Second}

type suite struct {
	*testing.T
	Harness
}

// id names the n-th playback of the tests.
func id(n int) guard.ID { return guard.DeriveID("user", "", fmt.Sprint(n)) }

func ids(ns []int) (ids []guard.ID) {
	for _, n := range ns {
		ids = append(ids, id(n))
	}
	return ids
}

func idsOf(guards []guard.Guard) (ids []guard.ID) {
	for _, g := range guards {
		ids = append(ids, g.ID)
	}
	return ids
}

func claim(n int) guard.Claim {
	return guard.Claim{User: "user", ID: id(n), Stream: "movie", Device: "tv"}
}

func with(c guard.Claim, intent guard.Intent) guard.Claim {
	c.Intent = intent
	return c
}

// named is a claim of media under their own name.
func named(c guard.Claim) guard.Claim {
	c.Named = true
	return c
}

// nameless is a claim of a request that has lost every name. The id is what its own
// guard would be known by.
func nameless(c guard.Claim) guard.Claim {
	c.Nameless = true
	return c
}

// anew is a claim of a playback's first request.
func anew(c guard.Claim) guard.Claim {
	c.Anew = true
	return c
}

// by is a claim of a client.
func by(client guard.Client, c guard.Claim) guard.Claim {
	c.Client = client
	return c
}

// acquire expects an outcome and returns the verdict.
func (s *suite) acquire(want guard.Outcome, c guard.Claim, p guard.Policy) guard.Verdict {
	s.Helper()
	v, err := s.Store.Acquire(context.Background(), c, p)
	if err != nil {
		s.Fatalf("acquire: %v", err)
	}
	if v.Outcome != want {
		s.Fatalf("acquire: %v, want %v", v.Outcome, want)
	}
	if v.Limit != p.Limit {
		s.Fatalf("verdict says limit %d, want %d", v.Limit, p.Limit)
	}
	return v
}

func (s *suite) refresh(want guard.Outcome, n int) guard.Verdict {
	s.Helper()
	v, err := s.Store.Refresh(context.Background(), "user", id(n), policy)
	if err != nil {
		s.Fatalf("refresh: %v", err)
	}
	if v.Outcome != want {
		s.Fatalf("refresh: %v, want %v", v.Outcome, want)
	}
	return v
}

func (s *suite) release(want bool, n int) {
	s.Helper()
	found, err := s.Store.Release(context.Background(), "user", id(n), policy)
	if err != nil || found != want {
		s.Fatalf("release: %v, %v, want %v", found, err, want)
	}
}

func (s *suite) revoke(want bool, n int) {
	s.Helper()
	found, err := s.Store.Revoke(context.Background(), "user", id(n), policy)
	if err != nil || found != want {
		s.Fatalf("revoke: %v, %v, want %v", found, err, want)
	}
}

// holds expects the user to hold exactly these playbacks, oldest first.
func (s *suite) holds(want ...int) []guard.Guard {
	s.Helper()
	guards, err := s.Store.List(context.Background(), "user")
	if err != nil {
		s.Fatalf("list: %v", err)
	}
	if got, want := idsOf(guards), ids(want); !slices.Equal(got, want) {
		s.Fatalf("user holds %v, want %v", got, want)
	}
	return guards
}

func (s *suite) createsAGuard() {
	v := s.acquire(guard.Admitted, claim(1), policy)
	g := v.Guard
	if v.Held != 1 || g.ID != id(1) || g.User != "user" || g.Stream != "movie" || g.Device != "tv" {
		s.Errorf("verdict %+v", v)
	}
	if got := g.ExpiresAt.Sub(g.CreatedAt); got != policy.Interval {
		s.Errorf("expires %v after its creation, want %v", got, policy.Interval)
	}
	if got := g.RemovedAt.Sub(g.CreatedAt); got != policy.TTL {
		s.Errorf("removed %v after its creation, want %v", got, policy.TTL)
	}
	if got := s.holds(1)[0]; got != g {
		s.Errorf("list says %+v, acquire said %+v", got, g)
	}
}

func (s *suite) repeatedAcquireChangesOnlyTimes() {
	first := s.acquire(guard.Admitted, claim(1), policy).Guard
	s.Advance(10 * time.Second)
	v := s.acquire(guard.Refreshed, claim(1), policy)
	again := v.Guard
	if v.Held != 1 || !again.CreatedAt.Equal(first.CreatedAt) || !again.RemovedAt.After(first.RemovedAt) {
		s.Errorf("first %+v, again %+v", first, again)
	}
	s.holds(1)
}

func (s *suite) refreshExtendsBothTimes() {
	first := s.acquire(guard.Admitted, claim(1), policy).Guard
	s.Advance(20 * time.Second)
	v := s.refresh(guard.Refreshed, 1)
	if d := v.Guard.ExpiresAt.Sub(first.ExpiresAt); d < 20*time.Second {
		s.Errorf("expires_at moved by %v, want 20s", d)
	}
	if d := v.Guard.RemovedAt.Sub(first.RemovedAt); d < 20*time.Second {
		s.Errorf("removed_at moved by %v, want 20s", d)
	}
	if v.Guard.Stream != "movie" || v.Guard.Device != "tv" || v.Held != 1 {
		s.Errorf("refresh changed more than times: %+v", v)
	}
}

// Handlers of one store have different times: what one was told of a guard holds
// whatever the others do.
func (s *suite) timesNeverGoBack() {
	long := policy
	long.Interval, long.TTL = 6*time.Minute, 10*time.Minute
	told := s.acquire(guard.Admitted, claim(1), long).Guard
	moved := claim(1)
	moved.Device = "phone"
	for _, call := range []func() guard.Verdict{
		func() guard.Verdict { return s.refresh(guard.Refreshed, 1) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, claim(1), policy) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, nameless(claim(2)), policy) },
		func() guard.Verdict { return s.acquire(guard.Refreshed, moved, policy) },
	} {
		s.Advance(time.Second)
		if g := call().Guard; g.ExpiresAt != told.ExpiresAt || g.RemovedAt != told.RemovedAt {
			s.Errorf("expires %v and is removed %v after what was told", g.ExpiresAt.Sub(told.ExpiresAt), g.RemovedAt.Sub(told.RemovedAt))
		}
	}
	s.Advance(told.ExpiresAt.Sub(told.CreatedAt))
	if g := s.refresh(guard.Refreshed, 1).Guard; g.ExpiresAt.Sub(told.ExpiresAt) != policy.Interval+4*time.Second || g.RemovedAt != told.RemovedAt {
		s.Errorf("%+v, told %+v", g, told)
	}
}

func (s *suite) refreshNeverCreates() {
	s.refresh(guard.Absent, 1)
	s.holds()
	s.acquire(guard.Admitted, claim(1), policy)
	s.refresh(guard.Absent, 2)
	s.holds(1)
}

func (s *suite) lapsedGuardKeepsItsSlotUntilTTL() {
	one := policy
	one.Limit = 1
	s.acquire(guard.Admitted, claim(1), one)
	s.Advance(policy.Interval + time.Second)
	s.holds(1)
	v := s.acquire(guard.Rejected, claim(2), one)
	if v.FreeIn <= 0 || v.FreeIn > 29*time.Second {
		s.Errorf("free in %v, want at most 29s", v.FreeIn)
	}
	s.Advance(policy.TTL - policy.Interval)
	s.holds()
	s.acquire(guard.Admitted, claim(2), one)
}

func (s *suite) lapsedGuardIsRefreshable() {
	s.acquire(guard.Admitted, claim(1), policy)
	s.Advance(policy.Interval + time.Second)
	s.refresh(guard.Refreshed, 1)
	s.Advance(policy.Interval + time.Second)
	s.acquire(guard.Refreshed, claim(1), policy)
	s.Advance(policy.Interval + time.Second)
	s.holds(1)
}

func (s *suite) reclaimLapsedTakesTheLongestLapsed() {
	two := policy
	two.Limit, two.Reclaim = 2, guard.ReclaimLapsed
	s.acquire(guard.Admitted, claim(1), two)
	s.Advance(time.Second)
	s.acquire(guard.Admitted, claim(2), two)
	s.Advance(time.Second)
	s.refresh(guard.Refreshed, 1)

	v := s.acquire(guard.Rejected, claim(3), two)
	if v.FreeIn <= 0 || v.FreeIn > 59*time.Second {
		s.Errorf("free in %v, want at most 59s: the interval of the guard that lapses first", v.FreeIn)
	}
	s.Advance(policy.Interval)
	s.takes(guard.Admitted, claim(3), two, 2)
	s.holds(1, 3)
	// The one whose slot was taken may come back, in another such slot.
	s.refresh(guard.Replaced, 2)
	s.takes(guard.Admitted, claim(2), two, 1)
	s.holds(3, 2)
	s.acquire(guard.Replaced, claim(1), two)
}

func (s *suite) reclaimLapsedNeverExceedsALoweredLimit() {
	p := policy
	p.Reclaim = guard.ReclaimLapsed
	for n := range 3 {
		s.acquire(guard.Admitted, claim(n), p)
	}
	s.Advance(policy.Interval)
	s.refresh(guard.Refreshed, 0)
	p.Limit = 1
	s.acquire(guard.Rejected, claim(3), p)
	s.holds(0, 1, 2)
	p.Limit = 2
	s.acquire(guard.Admitted, claim(3), p)
	s.holds(0, 3)
}

func (s *suite) limitRefusesTheOneTooMany() {
	for n := range 3 {
		s.acquire(guard.Admitted, claim(n), policy)
		s.Advance(time.Second)
	}
	v := s.acquire(guard.Rejected, claim(3), policy)
	if v.Held != 3 || len(v.InTheWay) != 3 || v.InTheWay[0].ID != id(0) || v.InTheWay[2].Stream != "movie" {
		s.Errorf("verdict %+v", v)
	}
	if v.FreeIn <= 0 || v.FreeIn > 87*time.Second {
		s.Errorf("free in %v, want at most 87s", v.FreeIn)
	}
	s.acquire(guard.Refreshed, claim(1), policy)
	s.holds(0, 1, 2)
}

func (s *suite) limitOfZeroRefusesEverybody() {
	none := policy
	none.Limit = 0
	v := s.acquire(guard.Rejected, claim(1), none)
	if v.FreeIn != policy.TTL {
		s.Errorf("free in %v, want the ttl: no slot ever frees", v.FreeIn)
	}
	s.holds()
}

func (s *suite) refusalShowsTheOldestSixteenAndCountsAll() {
	const all, far = 20, guard.MaxLimit
	many := policy
	many.Limit = all
	for n := range all {
		s.acquire(guard.Admitted, on(n, "a", fmt.Sprint(n), "big"), many)
		s.Advance(time.Second)
	}
	// The oldest will be the last to go, the youngest, which are not shown, the first.
	for n := range guard.MaxInTheWay {
		s.refresh(guard.Refreshed, n)
	}
	var oldest []int
	for n := range guard.MaxInTheWay {
		oldest = append(oldest, n)
	}
	perClass := policy
	perClass.Limit, perClass.Rules = far, []guard.Rule{{Per: "class", Limit: all}}
	lapsed := many
	lapsed.Reclaim = guard.ReclaimLapsed
	for _, c := range []struct {
		p    guard.Policy
		free time.Duration
	}{
		{many, policy.TTL - 4*time.Second}, {perClass, policy.TTL - 4*time.Second}, {lapsed, policy.Interval - 4*time.Second},
	} {
		per := ""
		if len(c.p.Rules) > 0 {
			per = "class"
		}
		v := s.refuses(on(far, "b", "tv", "big"), c.p, per, oldest...)
		if v.Blocking != all || v.Held != all || v.FreeIn != c.free {
			s.Errorf("%d are in the way, %d are held, free in %v; want %d, %d, %v", v.Blocking, v.Held, v.FreeIn, all, all, c.free)
		}
	}
	s.Advance(policy.TTL - 4*time.Second)
	s.acquire(guard.Admitted, on(far, "b", "tv", "big"), many)
}

// passesUncounted expects that whatever a playback does, it passes and leaves nothing.
func (s *suite) passesUncounted(p guard.Policy, held int) {
	s.Helper()
	other := on(5000, "elsewhere", "radio", "tiny")
	for _, c := range []guard.Claim{other, anew(other), named(other), nameless(other), with(other, guard.Look), with(other, guard.Resume)} {
		v := s.acquire(guard.Uncounted, c, p)
		if !v.Outcome.Pass() || v.Held != held || v.Guard != (guard.Guard{}) || len(v.Replaced) > 0 {
			s.Errorf("verdict %+v", v)
		}
	}
	if n := s.Size("user"); n != held {
		s.Errorf("%d records, want the %d guards", n, held)
	}
}

func (s *suite) observedBeyondTheBoundPassUncounted() {
	p := policy
	p.Limit, p.AtLimit, p.Observe = 1, guard.ReplaceOldest, true
	p.Rules = []guard.Rule{{Per: "device", Limit: 1}}
	for n := range guard.MaxObserved {
		s.acquire(guard.Admitted, claim(n), p)
	}
	s.passesUncounted(p, guard.MaxObserved)
	s.acquire(guard.Refreshed, claim(0), p)
	s.acquire(guard.Refreshed, nameless(claim(5000)), p)
	p.Observe, p.AtLimit = false, guard.Reject
	if v := s.acquire(guard.Rejected, claim(5000), p); v.Blocking != guard.MaxObserved {
		s.Errorf("%d are in the way", v.Blocking)
	}
	p.Observe = true
	s.release(true, 0)
	s.acquire(guard.Admitted, claim(5000), p)
}

// fill has the user hold as many guards as a store keeps, on as many streams.
func (s *suite) fill() {
	s.Helper()
	p := policy
	p.Limit = guard.Unlimited
	p.Rules = []guard.Rule{{Per: "device", Limit: guard.Unlimited}}
	for n := range guard.MaxLimit {
		s.acquire(guard.Admitted, on(n, fmt.Sprint(n), "tv", "big"), p)
	}
}

func (s *suite) unlimitedBeyondTheBoundPassUncounted() {
	p := policy
	p.Limit, p.AtLimit = guard.Unlimited, guard.ReplaceOldest
	s.fill()
	s.passesUncounted(p, guard.MaxLimit)
	p.Rules = []guard.Rule{{Per: "device", Limit: guard.Unlimited, AtLimit: guard.ReplaceOldest}}
	s.passesUncounted(p, guard.MaxLimit)
	s.acquire(guard.Refreshed, on(0, "0", "tv", "big"), p)
	// A rule beside it refuses as ever, and replaces.
	p.Rules = append(p.Rules, guard.Rule{Per: "class", Limit: 1})
	if v := s.acquire(guard.Rejected, on(5000, "a", "tv", "big"), p); v.Rule.Per != "class" || v.Blocking != guard.MaxLimit {
		s.Errorf("refused by %+v, %d are in the way", v.Rule, v.Blocking)
	}
	p.Rules[1] = guard.Rule{Per: "stream", Limit: 1, AtLimit: guard.ReplaceOldest}
	s.replaces(guard.Admitted, on(5000, "7", "tv", "big"), p, 7)
	// A playback that resumes is not refused, whatever the limit is.
	p = policy
	v := s.acquire(guard.Uncounted, with(claim(5001), guard.Resume), p)
	if v.Held != guard.MaxLimit {
		s.Errorf("%d are held", v.Held)
	}
}

func (s *suite) noLimitIsHigherThanMaxLimit() {
	s.fill()
	p := policy
	p.Limit = 5 * guard.MaxLimit
	for _, p.Rules = range [][]guard.Rule{nil, {{Per: "device", Limit: guard.Unlimited}}} {
		v := s.acquire(guard.Rejected, claim(5000), p)
		if v.Rule.Limit != guard.MaxLimit || v.Blocking != guard.MaxLimit || v.FreeIn <= 0 || v.FreeIn > policy.TTL {
			s.Errorf("verdict %+v", v)
		}
	}
	p.Limit, p.Rules = guard.Unlimited, []guard.Rule{{Per: "device", Limit: 5 * guard.MaxLimit}}
	if v := s.acquire(guard.Rejected, on(5000, "a", "tv", ""), p); v.Rule != (guard.Rule{Per: "device", Limit: guard.MaxLimit}) {
		s.Errorf("refused by %+v", v.Rule)
	}
	p.Limit, p.Rules, p.AtLimit = 5*guard.MaxLimit, nil, guard.ReplaceOldest
	s.replaces(guard.Admitted, claim(5000), p, 0)
}

func (s *suite) allOfAThousandAreReplacedAtOnce() {
	s.fill()
	p := policy
	p.Limit, p.AtLimit = 1, guard.ReplaceOldest
	v := s.acquire(guard.Admitted, claim(5000), p)
	all := make([]int, guard.MaxLimit)
	for n := range all {
		all[n] = n
	}
	if v.Held != 1 || !slices.Equal(v.Replaced, ids(all)) {
		s.Errorf("%d are held, %d replaced", v.Held, len(v.Replaced))
	}
	s.holds(5000)
	if n := s.Size("user"); n != 1+guard.MaxMarks {
		s.Errorf("%d records", n)
	}
	for n := guard.MaxLimit - guard.MaxMarks; n < guard.MaxLimit; n++ {
		s.refresh(guard.Replaced, n)
	}
	p.AtLimit = guard.Reject
	s.acquire(guard.Rejected, with(claim(0), guard.Resume), p)
}

func (s *suite) loweredLimitKeepsTheAdmitted() {
	for n := range 3 {
		s.acquire(guard.Admitted, claim(n), policy)
		s.Advance(time.Second)
	}
	one := policy
	one.Limit = 1
	for n := range 3 {
		s.acquire(guard.Refreshed, claim(n), one)
		s.Advance(time.Second)
	}
	// Two of the three must go before a slot is free.
	v := s.acquire(guard.Rejected, claim(3), one)
	if v.FreeIn <= 88*time.Second || v.FreeIn > 89*time.Second {
		s.Errorf("free in %v, want 89s: when the last of the three goes", v.FreeIn)
	}
}

func (s *suite) parallelAcquiresAdmitExactlyTheLimit() {
	var admitted, rejected atomic.Int32
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			v, err := s.Store.Acquire(context.Background(), claim(n), policy)
			switch {
			case err != nil:
				s.Errorf("acquire: %v", err)
			case v.Outcome == guard.Admitted:
				admitted.Add(1)
			case v.Outcome == guard.Rejected:
				rejected.Add(1)
			}
		})
	}
	wg.Wait()
	if admitted.Load() != 3 || rejected.Load() != 197 {
		s.Errorf("%d admitted, %d rejected, want 3 and 197", admitted.Load(), rejected.Load())
	}
	if guards, _ := s.Store.List(context.Background(), "user"); len(guards) != 3 {
		s.Errorf("user holds %d guards, want 3", len(guards))
	}
}

func (s *suite) releaseFreesTheSlotAtOnce() {
	for n := range 3 {
		s.acquire(guard.Admitted, claim(n), policy)
	}
	s.release(true, 1)
	s.release(false, 1)
	s.release(false, 7)
	s.holds(0, 2)
	s.acquire(guard.Admitted, claim(3), policy)
	// The released playback may start again like any other.
	s.release(true, 0)
	s.acquire(guard.Admitted, claim(1), policy)
	s.holds(2, 3, 1)
}

func (s *suite) releaseIsNotUndoneByARacingRefresh() {
	for n := range 20 {
		s.acquire(guard.Admitted, claim(n), policy)
		s.Advance(guard.Settle)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := s.Store.Refresh(context.Background(), "user", id(n), policy); err != nil {
					s.Errorf("refresh: %v", err)
				}
			})
			wg.Go(func() {
				if _, err := s.Store.Acquire(context.Background(), claim(n), policy); err != nil {
					s.Errorf("acquire: %v", err)
				}
			})
		}
		s.release(true, n)
		wg.Wait()
		s.holds()
	}
}

func (s *suite) stragglersOfAReleasePassWithoutASlot() {
	s.acquire(guard.Admitted, claim(1), policy)
	s.Advance(time.Minute)
	s.release(true, 1)
	s.acquire(guard.Released, claim(1), policy)
	s.Advance(guard.Settle - time.Millisecond)
	s.acquire(guard.Released, nameless(claim(1)), policy)
	s.refresh(guard.Absent, 1)
	s.holds()
	s.Advance(time.Millisecond)
	s.acquire(guard.Admitted, claim(1), policy)
	s.release(true, 1)
	s.acquire(guard.Admitted, claim(1), policy)
	s.acquire(guard.Refreshed, claim(1), policy)
	// Who starts anew is no straggler.
	s.acquire(guard.Admitted, claim(2), policy)
	s.Advance(time.Minute)
	s.release(true, 2)
	s.acquire(guard.Vacant, with(claim(2), guard.Look), policy)
	s.acquire(guard.Admitted, anew(claim(2)), policy)
}

func (s *suite) stragglersPassNoLongerThanThePlaybackLived() {
	one := policy
	one.Limit = 1
	s.acquire(guard.Admitted, claim(1), one)
	s.Advance(2 * time.Second)
	s.release(true, 1)
	s.acquire(guard.Admitted, claim(2), one)
	s.Advance(2*time.Second - time.Millisecond)
	s.acquire(guard.Released, claim(1), one)
	s.Advance(time.Millisecond)
	s.acquire(guard.Rejected, claim(1), one)
	// One that did not live at all has none.
	s.release(true, 2)
	s.acquire(guard.Admitted, claim(3), one)
	s.release(true, 3)
	s.acquire(guard.Admitted, claim(4), one)
	s.acquire(guard.Rejected, claim(3), one)
}

func (s *suite) playbackThatCameBackHasNoStragglers() {
	one := policy
	one.Limit = 1
	for _, back := range []guard.Claim{claim(1), anew(claim(1))} {
		s.acquire(guard.Admitted, claim(1), one)
		s.Advance(time.Minute)
		s.release(true, 1)
		s.Advance(guard.Settle)
		for range 3 {
			s.acquire(guard.Admitted, back, one)
			s.Advance(time.Minute)
			s.release(true, 1)
			s.acquire(guard.Admitted, on(2, "other", "", ""), one)
			s.acquire(guard.Rejected, claim(1), one)
			s.acquire(guard.Rejected, nameless(claim(1)), one)
			// Neither is it brought back.
			s.acquire(guard.Released, with(claim(1), guard.Resume), one)
			s.release(true, 2)
		}
		// Long after its last release it is like any other.
		s.Advance(policy.TTL)
		s.acquire(guard.Admitted, claim(1), one)
		s.Advance(time.Minute)
		s.release(true, 1)
		s.acquire(guard.Released, claim(1), one)
		s.Advance(policy.TTL)
	}
}

// Somebody with one slot plays twenty channels at once, each of which
// gives the slot back every four seconds, under one id or under a new one each time.
// Nor does giving it back under a new id each time.
func (s *suite) afterManyReleasesStragglersPassForAMoment() {
	for n := range guard.MaxGraces + 1 {
		s.acquire(guard.Admitted, named(claim(n)), policy)
		s.Advance(guard.Settle)
		s.release(true, n)
		s.acquire(guard.Released, named(claim(n)), policy)
		s.Advance(guard.Watched)
		if n < guard.MaxGraces {
			s.acquire(guard.Released, named(claim(n)), policy)
		}
	}
	s.acquire(guard.Admitted, named(claim(guard.MaxGraces)), policy)
}

func (s *suite) givingTheSlotBackDoesNotVoidTheLimit() {
	one := policy
	one.Limit = 1
	for _, newIDs := range []bool{false, true} {
		passed := 0
		const seconds = 100
		for second := range seconds {
			for channel := range 20 {
				c := on(channel, fmt.Sprint("channel ", channel), "", "")
				if newIDs {
					c.ID = id(1000*channel + second/4)
				}
				for _, c.Anew = range []bool{true, false} {
					v, err := s.Store.Acquire(context.Background(), c, one)
					if err != nil {
						s.Fatal(err)
					}
					if !c.Anew && v.Outcome.Pass() {
						passed++
					}
				}
				if second%4 == channel%4 {
					s.Store.Release(context.Background(), "user", c.ID, one)
				}
			}
			s.Advance(time.Second)
		}
		// The limit, and as much again for stragglers.
		if passed > 2*seconds {
			s.Errorf("new ids %v: %d segments passed in %d seconds", newIDs, passed, seconds)
		}
	}
}

// A handler with a long ttl admits, one with a short ttl ends: a node that
// missed the end does not bring the guard back as long as it may remember it.
func (s *suite) marksLiveForTheLongerTTL() {
	ctx := context.Background()
	short, long := policy, policy
	long.Interval, long.TTL = 6*time.Minute, 10*time.Minute
	short.Limit, short.AtLimit = 1, guard.ReplaceOldest
	for n, c := range []struct {
		end  func()
		want guard.Outcome
	}{
		{func() { s.Store.Revoke(ctx, "user", id(0), short) }, guard.Revoked},
		{func() { s.replaces(guard.Admitted, claim(9), short, 1); s.release(true, 9) }, guard.Replaced},
		{func() { s.Store.Release(ctx, "user", id(2), short) }, guard.Released},
	} {
		resumes := with(claim(n), guard.Resume)
		s.acquire(guard.Admitted, claim(n), long)
		s.refresh(guard.Refreshed, n) // which is short
		c.end()
		s.Advance(long.TTL / 2)
		s.acquire(c.want, resumes, long)
		s.Advance(long.TTL/2 - time.Millisecond)
		if n := s.Size("user"); n != 1 {
			s.Errorf("%d marks, want the one", n)
		}
		s.Advance(time.Millisecond)
		s.acquire(guard.Admitted, resumes, long)
		s.release(true, n)
		s.Advance(long.TTL)
	}
	s.acquire(guard.Admitted, claim(1), short)
	s.Store.Revoke(ctx, "user", id(1), long)
	s.Advance(long.TTL - time.Millisecond)
	s.acquire(guard.Revoked, claim(1), short)
}

func (s *suite) revokedPlaybackCannotCarryOn() {
	s.acquire(guard.Admitted, claim(1), policy)
	s.revoke(false, 2)
	s.revoke(true, 1)
	s.revoke(false, 1)
	s.release(false, 1)
	s.holds()
	for _, c := range []guard.Claim{claim(1), anew(claim(1)), named(claim(1)), nameless(claim(1)), with(claim(1), guard.Look), with(claim(1), guard.Resume)} {
		v := s.acquire(guard.Revoked, c, policy)
		if v.FreeIn <= 0 || v.FreeIn > policy.TTL {
			s.Errorf("revoked for %v, want at most %v", v.FreeIn, policy.TTL)
		}
	}
	s.refresh(guard.Revoked, 1)
	s.acquire(guard.Admitted, claim(2), policy)
	s.Advance(policy.TTL)
	s.acquire(guard.Admitted, claim(1), policy)
}

func (s *suite) movesToANewStreamInItsSlot() {
	one := policy
	one.Limit = 1
	s.acquire(guard.Admitted, claim(1), one)
	c := claim(1)
	c.Stream, c.Device = "channel 2", "phone"
	if g := s.acquire(guard.Refreshed, c, one).Guard; g.Stream != "channel 2" || g.Device != "phone" {
		s.Errorf("guard is on %q, %q", g.Stream, g.Device)
	}
	c.Stream, c.Device = "", ""
	if g := s.acquire(guard.Refreshed, c, one).Guard; g.Stream != "channel 2" || g.Device != "phone" {
		s.Errorf("an empty claim moved the guard to %q, %q", g.Stream, g.Device)
	}
	s.holds(1)
}

func (s *suite) claimChangesTheLabelsItHas() {
	labels := func(want guard.Labels, claimed guard.Labels) {
		s.Helper()
		c := claim(1)
		c.Labels = claimed
		if g := s.acquire(guard.Refreshed, c, policy).Guard; g.Labels != want {
			s.Errorf("after %.20q the labels are %.20q, want %.20q", claimed, g.Labels, want)
		}
	}
	a, b := guard.Labels("").With("a", "1"), guard.Labels("").With("b", "2=3")
	s.acquire(guard.Admitted, claim(1), policy)
	labels(a, a)
	labels(a, "")
	labels(b+a[1:], b)
	labels(guard.Labels("").With("a", "4").With("b", "2=3"), guard.Labels("").With("a", "4"))
	// Where there is no room for all, what is claimed comes first.
	long := guard.Labels("").With("c", strings.Repeat("x", guard.MaxLabels-len("\x1fc=\x1fb=2=3\x1f")))
	labels(long+"a=4\x1f", long)
	longer := guard.Labels("").With("d", strings.Repeat("y", guard.MaxLabels-len("\x1fd=\x1f")))
	labels(longer, longer)
}

func (s *suite) lookNeverCreates() {
	one := policy
	one.Limit = 1
	s.acquire(guard.Vacant, with(claim(1), guard.Look), one)
	s.holds()
	s.acquire(guard.Admitted, claim(1), one)
	s.acquire(guard.Refreshed, with(claim(1), guard.Look), one)
	s.acquire(guard.Rejected, with(claim(2), guard.Look), one)
	one.Reclaim = guard.ReclaimLapsed
	s.Advance(policy.Interval)
	s.acquire(guard.Vacant, with(claim(2), guard.Look), one)
	s.holds(1)
}

func (s *suite) resumeRestoresALostGuardPastTheLimit() {
	one := policy
	one.Limit = 1
	s.acquire(guard.Admitted, claim(1), one)
	s.acquire(guard.Refreshed, with(claim(1), guard.Resume), one)
	s.acquire(guard.Admitted, with(claim(2), guard.Resume), one)
	s.holds(1, 2)
	// What was ended on purpose stays gone.
	s.release(true, 1)
	s.revoke(true, 2)
	s.Advance(guard.Settle)
	s.acquire(guard.Released, with(claim(1), guard.Resume), one)
	s.acquire(guard.Revoked, with(claim(2), guard.Resume), one)
	s.holds()
	// Unless it was started again since.
	s.Advance(20 * time.Second)
	again := with(claim(1), guard.Resume)
	again.Alone = 30 * time.Second
	s.acquire(guard.Released, again, one)
	again.Alone = 10 * time.Second
	s.acquire(guard.Admitted, claim(3), one)
	s.acquire(guard.Admitted, again, one)
	s.acquire(guard.Revoked, with(claim(2), guard.Resume), one)
	s.holds(3, 1)
}

// on is a claim for a stream, device and class.
func on(n int, stream, device, class string) guard.Claim {
	c := claim(n)
	c.Stream, c.Device, c.Labels = stream, device, guard.Labels("").With("class", class)
	return c
}

// refuses expects a refusal by a rule for these guards.
func (s *suite) refuses(c guard.Claim, p guard.Policy, per string, inTheWay ...int) guard.Verdict {
	s.Helper()
	v := s.acquire(guard.Rejected, c, p)
	if got, want := idsOf(v.InTheWay), ids(inTheWay); v.Rule.Per != per || !slices.Equal(got, want) {
		s.Fatalf("refused by %+v for %v, want per %q for %v", v.Rule, got, per, want)
	}
	return v
}

func (s *suite) replaces(want guard.Outcome, c guard.Claim, p guard.Policy, replaced ...int) {
	s.Helper()
	v := s.acquire(want, c, p)
	if want := ids(replaced); !slices.Equal(v.Replaced, want) {
		s.Fatalf("replaced %v, want %v", v.Replaced, want)
	}
}

func (s *suite) rulesMustAllAllow() {
	p := policy
	p.Rules = []guard.Rule{{Per: "stream", Limit: 2}, {Per: "device", Limit: 2}, {Per: "class", Limit: 1}}
	s.acquire(guard.Admitted, on(1, "a", "tv", "big"), p)
	v := s.refuses(on(2, "b", "phone", "big"), p, "class", 1)
	if v.Rule.Limit != 1 || v.Held != 1 || v.FreeIn <= 0 || v.FreeIn > policy.TTL {
		s.Errorf("verdict %+v", v)
	}
	s.acquire(guard.Admitted, on(2, "b", "tv", "small"), p)
	s.refuses(on(3, "c", "tv", "middle"), p, "device", 1, 2)
	s.acquire(guard.Admitted, on(3, "a", "phone", "middle"), p)
	s.refuses(on(4, "a", "tablet", "tiny"), p, "stream", 1, 3)
	s.refuses(on(4, "c", "tablet", "tiny"), p, "", 1, 2, 3)
	s.acquire(guard.Refreshed, on(1, "a", "tv", "big"), p)
	if g := s.holds(1, 2, 3)[0]; g.Labels.Get("class") != "big" || g.Labels.Get("clas") != "" || g.Labels.Get("lass") != "" {
		s.Errorf("labels %q", g.Labels)
	}
	s.release(true, 1)
	s.acquire(guard.Admitted, on(4, "a", "tablet", "big"), p)
}

func (s *suite) ruleHoldsForAMove() {
	p := policy
	p.Rules = []guard.Rule{{Per: "stream", Limit: 1}}
	s.acquire(guard.Admitted, on(1, "a", "", ""), p)
	s.acquire(guard.Admitted, on(2, "b", "", ""), p)
	s.refuses(on(2, "a", "", ""), p, "stream", 1)
	s.refuses(with(on(2, "a", "", ""), guard.Resume), p, "stream", 1)
	if g := s.holds(1, 2)[1]; g.Stream != "b" {
		s.Errorf("refused, and yet it moved to %q", g.Stream)
	}
	s.acquire(guard.Refreshed, on(2, "c", "", ""), p)
	s.acquire(guard.Refreshed, on(1, "b", "", ""), p)
	p.Rules[0].AtLimit = guard.ReplaceOldest
	s.replaces(guard.Refreshed, on(2, "b", "", ""), p, 1)
	s.holds(2)
}

func (s *suite) ruleIgnoresWhatIsNotKnown() {
	p := policy
	p.Rules = []guard.Rule{{Per: "stream", Limit: 1}, {Per: "device", Limit: 0}, {Per: "class", Limit: 1}}
	for n := range 3 {
		s.acquire(guard.Admitted, on(n, "", "", ""), p)
	}
	s.refuses(on(3, "", "", ""), p, "", 0, 1, 2)
	s.refuses(on(3, "", "tv", ""), p, "device")
}

func (s *suite) startReplacesTheOldest() {
	p := policy
	p.AtLimit = guard.ReplaceOldest
	for n := range 3 {
		s.acquire(guard.Admitted, claim(n), p)
		s.Advance(time.Second)
	}
	s.acquire(guard.Refreshed, claim(0), p)
	s.replaces(guard.Admitted, claim(3), p, 0)
	s.holds(1, 2, 3)
	s.replaces(guard.Admitted, nameless(on(4, "other", "", "")), p, 1)
	s.holds(2, 3, 4)
	// A lowered limit is met at once.
	p.Limit = 1
	s.replaces(guard.Admitted, claim(5), p, 2, 3, 4)
	s.holds(5)
}

func (s *suite) startReplacesOnItsDeviceOnly() {
	p := policy
	p.AtLimit = guard.ReplaceDevice
	s.acquire(guard.Admitted, on(0, "a", "phone", ""), p)
	s.acquire(guard.Admitted, on(1, "a", "tv", ""), p)
	s.acquire(guard.Admitted, on(2, "a", "tv", ""), p)
	s.refuses(on(3, "a", "tablet", ""), p, "", 0, 1, 2)
	s.refuses(on(3, "a", "", ""), p, "", 0, 1, 2)
	s.replaces(guard.Admitted, on(3, "a", "tv", ""), p, 1)
	s.holds(0, 2, 3)
}

func (s *suite) ruleThatReplacesMakesRoomUnderTheLimit() {
	p := policy
	p.Limit, p.Rules = 2, []guard.Rule{{Per: "device", Limit: 1, AtLimit: guard.ReplaceOldest}}
	s.acquire(guard.Admitted, on(0, "a", "tv", ""), p)
	s.acquire(guard.Admitted, on(1, "a", "phone", ""), p)
	before := 0
	for n := 2; n < 2*guard.MaxMarks; n++ { // zapping
		s.replaces(guard.Admitted, on(n, fmt.Sprint(n), "tv", ""), p, before)
		before = n
	}
	s.refuses(on(1000, "a", "tablet", ""), p, "", 1, 2*guard.MaxMarks-1)
}

func (s *suite) nothingIsReplacedForARefusal() {
	p := policy
	p.Limit, p.Rules = 1, []guard.Rule{{Per: "stream", Limit: 1, AtLimit: guard.ReplaceOldest}}
	s.acquire(guard.Admitted, on(0, "a", "", ""), guard.Policy{Limit: 2, Interval: p.Interval, TTL: p.TTL})
	s.acquire(guard.Admitted, on(1, "b", "", ""), guard.Policy{Limit: 2, Interval: p.Interval, TTL: p.TTL})
	s.refuses(on(2, "a", "", ""), p, "", 0, 1)
	s.holds(0, 1)
}

func (s *suite) listIsOldestFirst() {
	for _, n := range []int{2, 0, 1} {
		s.acquire(guard.Admitted, claim(n), policy)
		s.Advance(time.Second)
	}
	s.refresh(guard.Refreshed, 2)
	s.holds(2, 0, 1)
	if guards, err := s.Store.List(context.Background(), "nobody"); err != nil || len(guards) != 0 {
		s.Errorf("list of an unknown user: %v, %v", guards, err)
	}
}

func (s *suite) foreignIDTouchesNobody() {
	ctx := context.Background()
	s.acquire(guard.Admitted, claim(1), policy)
	if v, err := s.Store.Refresh(ctx, "mallory", id(1), policy); err != nil || v.Outcome != guard.Absent {
		s.Errorf("foreign refresh: %v, %v", v.Outcome, err)
	}
	if found, err := s.Store.Release(ctx, "mallory", id(1), policy); err != nil || found {
		s.Errorf("foreign release: %v, %v", found, err)
	}
	if found, err := s.Store.Revoke(ctx, "mallory", id(1), policy); err != nil || found {
		s.Errorf("foreign revoke: %v, %v", found, err)
	}
	foreign := claim(1)
	foreign.User = "mallory"
	s.acquire(guard.Admitted, foreign, policy)
	s.holds(1)
}

func (s *suite) anyBytesAreJustAName() {
	long := make([]byte, guard.MaxLabel)
	for i := range long {
		long[i] = byte(i)
	}
	for _, user := range []string{"{a}b", "* ?[x]", "日本", "\xff\xfe", string(long), "a\x00b"} {
		c := guard.Claim{User: user, ID: id(1), Stream: string(long), Device: "\x00", Labels: guard.Labels("").With("a", string(long))}
		if g := s.acquire(guard.Admitted, c, policy).Guard; g.User != user || g.Stream != string(long) || g.Device != "\x00" {
			s.Errorf("guard %+v", g)
		}
		if guards, err := s.Store.List(context.Background(), user); err != nil || len(guards) != 1 || guards[0].Stream != string(long) {
			s.Errorf("list of %q: %v, %v", user, guards, err)
		}
	}
}

func (s *suite) marksAreBounded() {
	s.acquire(guard.Admitted, claim(0), policy)
	s.revoke(true, 0)
	for n := 1; n <= 3*guard.MaxMarks; n++ {
		s.acquire(guard.Admitted, claim(n), policy)
		s.release(true, n)
	}
	if n := s.Size("user"); n > guard.MaxMarks {
		s.Errorf("%d marks under one user, want at most %d", n, guard.MaxMarks)
	}
	// Releases do not wash a revocation away.
	s.refresh(guard.Revoked, 0)
	for n := 1; n <= 2*guard.MaxMarks; n++ {
		s.acquire(guard.Admitted, claim(1000+n), policy)
		s.revoke(true, 1000+n)
	}
	if n := s.Size("user"); n > guard.MaxMarks {
		s.Errorf("%d marks under one user, want at most %d", n, guard.MaxMarks)
	}
}

// An end of which the mark had no room is not undone by a node that missed it.
func (s *suite) resumeIsJudgedByTheLimitOnceAnEndWasForgotten() {
	one := policy
	one.Limit = 1
	resumes := with(claim(0), guard.Resume)
	for _, end := range []func(bool, int){s.release, s.revoke} {
		s.acquire(guard.Admitted, claim(0), one)
		end(true, 0)
		for n := 1; n <= guard.MaxMarks; n++ {
			s.Advance(time.Second)
			s.acquire(guard.Admitted, claim(n), one)
			end(true, n)
		}
		s.acquire(guard.Admitted, claim(100), one)
		s.acquire(guard.Refreshed, with(claim(100), guard.Resume), one)
		v := s.acquire(guard.Rejected, resumes, one)
		if v.Blocking != 1 || v.Held != 1 {
			s.Errorf("verdict %+v", v)
		}
		never := with(claim(200), guard.Resume)
		s.acquire(guard.Rejected, never, one)
		// Below the limit it is a playback like any other.
		s.release(true, 100)
		s.acquire(guard.Admitted, resumes, one)
		s.acquire(guard.Rejected, never, one)
		// Once the marks that were forgotten would be over, it is as before.
		s.Advance(policy.TTL - guard.MaxMarks*time.Second)
		s.acquire(guard.Refreshed, resumes, one)
		s.acquire(guard.Rejected, never, one) // for the release of 100 has cost another mark
		s.Advance(guard.MaxMarks * time.Second)
		s.acquire(guard.Admitted, never, one)
		s.Advance(2 * policy.TTL)
	}
}

func (s *suite) nothingIsLeftAfterTTL() {
	for n := range 3 {
		s.acquire(guard.Admitted, claim(n), policy)
	}
	s.release(true, 0)
	s.revoke(true, 1)
	s.Advance(policy.TTL + 31*time.Second)
	if n := s.Size("user"); n != 0 {
		s.Errorf("%d records left under the user, want none", n)
	}
}

func (s *suite) walkMeetsEverybodyWhoHoldsGuards() {
	w, ok := s.Store.(guard.Walker)
	if !ok {
		s.Log("the store is no guard.Walker, and need not be")
		return
	}
	walk := func(want map[string][]guard.Guard) {
		s.Helper()
		got := make(map[string][]guard.Guard)
		if err := w.Walk(context.Background(), func(user string, guards []guard.Guard) { got[user] = guards }); err != nil {
			s.Fatalf("walk: %v", err)
		}
		if !reflect.DeepEqual(got, want) {
			s.Fatalf("walk met %d users: %+v\nwant %d: %+v", len(got), got, len(want), want)
		}
	}
	walk(map[string][]guard.Guard{})
	want := make(map[string][]guard.Guard)
	for n := range 1000 { // more than any step
		c := claim(n)
		c.User = fmt.Sprintf("*\x00/ü\xff[%d]", n%900)
		v := s.acquire(guard.Admitted, c, policy)
		want[c.User] = append(want[c.User], v.Guard)
	}
	walk(want)
	// Who holds nothing any more is not met, whatever marks are left.
	for user, guards := range want {
		if len(guards) == 2 {
			s.Store.Release(context.Background(), user, guards[0].ID, policy)
			s.Store.Revoke(context.Background(), user, guards[1].ID, policy)
			delete(want, user)
		}
	}
	walk(want)
	s.Advance(policy.TTL)
	walk(map[string][]guard.Guard{})
}
