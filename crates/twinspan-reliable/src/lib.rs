//! One reliability engine: acks, RTT, resend, duplicates, channels and fragments.
