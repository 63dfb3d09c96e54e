package dev.edgebert

import java.io.File
import java.security.MessageDigest

/** Bundles that Python made. */
object Bundles {
    /** The embedded model's: where the system property `edgebert.bundle` says, or where `make export` puts it. */
    val default: File
        get() = File(System.getProperty("edgebert.bundle") ?: "../../build/default-tflite-w8a8-dynamic").also {
            check(File(it, "manifest.json").isFile) { "no bundle in $it: run make export, or give -Dedgebert.bundle" }
        }

    /** A copy that a test may break. */
    fun copy(into: File): File = File(into, "bundle").also { default.copyRecursively(it, overwrite = true) }

    /** Edits a manifest and seals it again, as one who means harm would. */
    fun edit(bundle: File, change: (String) -> String) {
        val file = File(bundle, "manifest.json")
        val seal = Regex("\"sha256\": \"[0-9a-f]{64}\"")
        val blank = "\"sha256\": \"${"0".repeat(64)}\""
        val text = change(seal.replaceFirst(file.readText(), blank))
        val hash = MessageDigest.getInstance("SHA-256").digest(text.toByteArray()).joinToString("") { "%02x".format(it) }
        file.writeText(text.replaceFirst(blank, "\"sha256\": \"$hash\""))
    }

    /** Puts a file's bytes and hash into the manifest. */
    fun list(bundle: File, name: String) {
        val bytes = File(bundle, name).readBytes()
        val hash = MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
        val said = Regex("(\"${Regex.escape(name)}\": \\{\\s*\"bytes\": )[0-9]+(,\\s*\"sha256\": \")[0-9a-f]{64}")
        edit(bundle) { said.replace(it) { m -> "${m.groupValues[1]}${bytes.size}${m.groupValues[2]}$hash" } }
    }
}
