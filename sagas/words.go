package sagas

import "strconv"

// The words by which a plan's kinds and policies are printed, in exports and to people. They are for ever: an
// export is hashed.

func (k Kind) String() string {
	switch k {
	case KindStep:
		return "step"
	case KindSeq:
		return "seq"
	case KindAll:
		return "all"
	case KindWait:
		return "wait"
	case KindDo:
		return "do"
	case KindEmit:
		return "emit"
	case KindChoose:
		return "choose"
	case KindRequire:
		return "require"
	case KindForEach:
		return "for-each"
	case KindWhile:
		return "while"
	case KindTry:
		return "try"
	}
	return "kind-" + strconv.Itoa(int(k))
}

func (r Role) String() string {
	switch r {
	case Compensatable:
		return "compensatable"
	case Pivot:
		return "pivot"
	case Retriable:
		return "retriable"
	}
	return "role-" + strconv.Itoa(int(r))
}

func (f OnFailure) String() string {
	switch f {
	case CancelRest:
		return "cancel-rest"
	case LetItFinish:
		return "let-it-finish"
	}
	return "on-failure-" + strconv.Itoa(int(f))
}

func (j Join) String() string {
	switch j {
	case JoinAll:
		return "all"
	case JoinSome:
		return "some"
	case JoinFirst:
		return "first"
	}
	return "join-" + strconv.Itoa(int(j))
}

func (d During) String() string {
	switch d {
	case DuringQuarantine:
		return "quarantine"
	case DuringIgnore:
		return "ignore"
	}
	return "during-" + strconv.Itoa(int(d))
}

func (a After) String() string {
	switch a {
	case AfterStart:
		return "start"
	case AfterFailure:
		return "failure"
	case AfterQuarantine:
		return "quarantine"
	case AfterIgnore:
		return "ignore"
	}
	return "after-" + strconv.Itoa(int(a))
}
