{{- define "vestnik.labels" -}}
app.kubernetes.io/name: vestnik
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "vestnik.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "vestnik.secret" -}}
{{ .Values.existingSecret | default .Release.Name }}
{{- end }}

{{/* Where every process gets its settings from. */}}
{{- define "vestnik.environment" -}}
envFrom:
  - configMapRef: {name: {{ .Release.Name }}}
  - secretRef: {name: {{ include "vestnik.secret" . }}}
{{- end }}

{{/* What a container may do: nothing but its work. */}}
{{- define "vestnik.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "vestnik.pod" -}}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 40
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {}
{{- end }}

{{/* A worker: dict "root" $ "name" "plan" "queue" "plan" "replicas" 1 "recreate" false */}}
{{- define "vestnik.worker" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels: {{ include "vestnik.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  replicas: {{ .replicas }}
  {{- if .recreate }}
  strategy: {type: Recreate}
  {{- end }}
  selector:
    matchLabels:
      app.kubernetes.io/name: vestnik
      app.kubernetes.io/instance: {{ .root.Release.Name }}
      app.kubernetes.io/component: {{ .name }}
  template:
    metadata:
      labels: {{ include "vestnik.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
      annotations:
        checksum/config: {{ toJson .root.Values.config | sha256sum }}
    spec: {{ include "vestnik.pod" .root | nindent 6 }}
      containers:
        - name: worker
          image: {{ include "vestnik.image" .root }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [worker, --queue, {{ .queue | quote }}, --metrics-port, "9100"]
          {{- include "vestnik.environment" .root | nindent 10 }}
          ports:
            - {name: metrics, containerPort: 9100}
            {{- if eq .queue "bounces" }}
            - {name: lmtp, containerPort: {{ .root.Values.bounces.port }}}
            {{- end }}
          startupProbe:
            httpGet: {path: /health, port: metrics}
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /health, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /health/ready, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
          resources: {{ toYaml .root.Values.workerResources | nindent 12 }}
          {{- include "vestnik.confined" .root | nindent 10 }}
{{- end }}
