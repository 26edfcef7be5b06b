//! Test doubles and checks for Align: enumerable policies, gradient checks, closeness with reasons.
