package dev.edgebert

/**
 * One question that [Edgebert.check] asked.
 *
 * @property name what was asked.
 * @property decibels signal to error; infinite where equal, null where the question is none of decibels.
 * @property least decibels that are due; null likewise.
 * @property detail what came out, in words.
 */
public data class Check(
    val name: String,
    val passed: Boolean,
    val decibels: Double?,
    val least: Double?,
    val detail: String,
)

/** Everything that [Edgebert.check] saw, on which runtime. */
public data class CheckReport(val runtime: String, val checks: List<Check>) {
    /** Whether every check passed. */
    val passed: Boolean get() = checks.all { it.passed }
}
