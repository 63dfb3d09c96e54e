package dev.edgebert

import java.io.File

/** What the gate for the phone says of a bundle, on the JVM: `CheckBundleKt BUNDLE` prints a line for each check. */
fun main(arguments: Array<String>) {
    Edgebert.open(File(arguments[0])).use { model ->
        for (check in model.check { _, _ -> }.checks) println("${check.passed} ${check.name}: ${check.detail}")
    }
}
