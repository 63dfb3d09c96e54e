package dev.edgebert.answers

import dev.edgebert.Choice
import dev.edgebert.Classification
import dev.edgebert.Scored
import dev.edgebert.bundle.Reading

/** Labels that are told where one applies. */
private const val TOP = 5

/** Labels of a text, from an output that has a number for each. */
internal fun classify(
    output: String,
    values: FloatArray,
    labels: List<String>,
    reading: Reading,
    asked: Asked,
): Classification {
    val scores = applied(reading.activation, values)
    val ranked = ranked(scores).map { Scored(labels[it], scores[it]) }
    val found = reading.threshold?.let { least -> ranked.filter { it.score >= least } } ?: ranked.take(TOP)
    return Classification(
        label = found.firstOrNull()?.label,
        score = found.firstOrNull()?.score,
        labels = found,
        scores = scores.toList(),
        logits = if (output == "logits") values.toList() else emptyList(),
        several = reading.threshold != null,
        truncated = asked.truncated,
        tokenCount = asked.tokenCount,
    )
}

/** Which of several texts goes best with the first, from a logit each. */
internal fun choose(logits: FloatArray, choices: List<String>, reading: Reading, asked: Asked): Choice {
    val scores = applied(reading.activation, logits)
    val best = best(scores)
    return Choice(
        choice = best,
        label = choices[best],
        score = scores[best],
        scores = scores.toList(),
        logits = logits.toList(),
        truncated = asked.truncated,
        tokenCount = asked.tokenCount,
    )
}
