import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "dev.edgebert.app"
    compileSdk = libs.versions.compileSdk.get().toInt()
    defaultConfig {
        applicationId = "dev.edgebert.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = libs.versions.versionCode.get().toInt()
        versionName = libs.versions.versionName.get()
    }
    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard.txt")
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
        targetCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
    }
    // A model is mapped from where it stands in the APK.
    androidResources { noCompress += listOf("tflite", "onnx") }
    packaging {
        resources {
            // Several libraries have these, and a phone needs none.
            excludes += listOf("META-INF/maven/**", "META-INF/native-image/**", "META-INF/versions/**")
        }
    }
}

kotlin {
    compilerOptions { jvmTarget.set(JvmTarget.fromTarget(libs.versions.jvmTarget.get())) }
}

dependencies {
    implementation(project(":edgebert"))
    implementation(libs.tensorflow.lite)
    // Their libraries for phones, and for emulators on a PC.
    for (platform in listOf("android-arm64", "android-x86_64")) {
        runtimeOnly(variantOf(libs.tensorflow.lite) { classifier(platform) })
        runtimeOnly(variantOf(libs.javacpp) { classifier(platform) })
    }
    // For .onnx bundles; adds 30 MB.
    // implementation(libs.onnxruntime.android)
}
