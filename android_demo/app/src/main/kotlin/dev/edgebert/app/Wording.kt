package dev.edgebert.app

import android.content.Context
import android.text.format.Formatter
import dev.edgebert.bundle.Reading
import java.text.NumberFormat

// Numbers and counts as they are written and read out.

internal fun Context.plural(id: Int, count: Int): String = resources.getQuantityString(id, count, count)

internal val Context.version: String get() = packageManager.getPackageInfo(packageName, 0).versionName.orEmpty()

internal fun percent(share: Double): String = NumberFormat.getPercentInstance().apply {
    maximumFractionDigits = 1
    minimumFractionDigits = 1
}.format(share)

/** With as many digits as are worth reading. */
internal fun milliseconds(value: Double): String = number(value, if (value < 10) 2 else if (value < 100) 1 else 0)

internal fun number(value: Double, digits: Int): String = NumberFormat.getNumberInstance().apply {
    maximumFractionDigits = digits
    minimumFractionDigits = digits
}.format(value)

internal fun number(value: Long): String = NumberFormat.getIntegerInstance().format(value)

/** A score as it is shown: a share where it is one, else the plain number. */
internal fun Reading.score(value: Double): String =
    if (activation == "softmax" || activation == "sigmoid") percent(value) else number(value, 3)

/** How long a bar for a score is. */
internal fun Reading.share(value: Double): Double = when (activation) {
    "softmax", "sigmoid" -> value
    "tanh" -> (value + 1) / 2
    else -> 0.0
}

internal fun Context.size(bytes: Long): String = Formatter.formatFileSize(this, bytes)
